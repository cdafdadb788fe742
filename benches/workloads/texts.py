"""A text classification session on texts that scikit-learn ships: tokens, features, five models, reports."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benches.workloads import Tracked


def documents(count: int, source: random.Random) -> tuple[list[str], list[int]]:
    """Short labelled texts: pieces of the descriptions of scikit-learn's data sets."""
    import sklearn

    words: dict[int, list[str]] = {}
    for i, path in enumerate(sorted((Path(sklearn.__file__).parent / "datasets" / "descr").glob("*.rst"))):
        found = [word for word in path.read_text(encoding="utf-8").lower().split() if word.isalpha()]
        if len(found) > 80:
            words[i] = found
    texts, labels = [], []
    for _ in range(count):
        label = source.choice(sorted(words))
        begin = source.randrange(len(words[label]) - 20)
        texts.append(" ".join(words[label][begin : begin + source.randrange(6, 20)]))
        labels.append(label)
    return texts, labels


def tweets(namespace: Tracked, scale: float) -> Iterator[str]:
    """Eight thousand texts at scale 1; models are shared with a registry, and one is changed through a pipeline."""
    import numpy
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.metrics import classification_report, confusion_matrix
    from sklearn.model_selection import train_test_split
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import Pipeline
    from sklearn.svm import LinearSVC

    namespace["texts"], namespace["labels"] = documents(int(8000 * scale), random.Random(11))
    yield "texts"
    namespace["lengths"] = [len(text) for text in namespace["texts"]]
    yield "lengths"
    namespace["tokens"] = [text.split() for text in namespace["texts"]]
    yield "tokens"
    namespace["stop"] = {"the", "of", "and", "a", "in", "to", "is"}
    for tokens in namespace["tokens"]:
        tokens[:] = [word for word in tokens if word not in namespace["stop"]]
    yield "stop words, in place"
    namespace["clean"] = [" ".join(tokens) for tokens in namespace["tokens"]]
    yield "join"
    parts = train_test_split(namespace["clean"], namespace["labels"], test_size=0.25, random_state=0)
    namespace["X_train"], namespace["X_test"], namespace["y_train"], namespace["y_test"] = parts
    del parts
    yield "split"
    namespace["vec"] = CountVectorizer(min_df=2)
    yield "vectoriser"
    namespace["M"] = namespace["vec"].fit_transform(namespace["X_train"])
    yield "count"
    namespace["tfidf"] = TfidfTransformer()
    namespace["T"] = namespace["tfidf"].fit_transform(namespace["M"])
    yield "weigh"
    namespace["models"] = {}
    namespace["scores"] = []
    yield "registry"
    models = {
        "nb": MultinomialNB(),
        "lr": LogisticRegression(max_iter=60),
        "svc": LinearSVC(),
        "sgd": SGDClassifier(random_state=0),
        "rf": RandomForestClassifier(n_estimators=25, max_depth=14, random_state=0, n_jobs=1),
    }
    for name in list(models):
        namespace[name] = models.pop(name).fit(namespace["T"], namespace["y_train"])
        namespace["models"][name] = namespace[name]
        yield f"fit {name}"
        features = namespace["tfidf"].transform(namespace["vec"].transform(namespace["X_test"]))
        namespace[f"pred_{name}"] = namespace[name].predict(features)
        right = numpy.mean(namespace[f"pred_{name}"] == numpy.array(namespace["y_test"]))
        namespace["scores"].append((name, float(right)))
        yield f"predict {name}"
        predicted = namespace[f"pred_{name}"]
        namespace["report"] = classification_report(namespace["y_test"], predicted, output_dict=True, zero_division=0)
        namespace["cm"] = confusion_matrix(namespace["y_test"], predicted)
        yield f"report {name}"
    namespace["pipe"] = Pipeline([("v", TfidfVectorizer(max_features=2000)), ("m", namespace["lr"])])
    yield "pipeline that shares a model"
    namespace["pipe"].fit(namespace["X_train"], namespace["y_train"])
    yield "fit the pipeline, which changes the shared model"
    namespace["sgd"].partial_fit(namespace["T"][:200], namespace["y_train"][:200])
    yield "fit further"
    best = max(namespace["scores"], key=lambda score: score[1])[0]
    namespace["best"] = namespace["models"][best]
    yield "alias of the best model"
    del namespace["M"]
    yield "delete the counts"
    assert namespace["texts"] and namespace["cm"].shape
    yield "look only"
