"""The session: thirty cells of Python, as a notebook has them, on the digits that scikit-learn ships."""

CELLS: list[tuple[str, str]] = [
    (
        "load the digits",
        """
import numpy as np, pandas as pd
from sklearn.datasets import load_digits
digits = load_digits()
images, labels = digits.images.copy(), digits.target.copy()
""",
    ),
    (
        "settings",
        """
settings = {"test share": 0.3, "seed": 7, "classes": sorted(set(labels.tolist()))}
history = []
""",
    ),
    (
        "a table of pixels",
        """
table = pd.DataFrame(images.reshape(len(images), -1), columns=[f"p{i}" for i in range(64)])
table["label"] = labels
""",
    ),
    (
        "summary",
        """
summary = table.describe()
counts = table["label"].value_counts().sort_index()
""",
    ),
    (
        "find blank pixels",
        """
blank = [column for column in table.columns if column != "label" and table[column].max() == 0]
history.append(("blank", len(blank)))
""",
    ),
    (
        "drop them, in place",
        """
for column in blank:
    del table[column]
""",
    ),
    (
        "more examples: shifted copies",
        """
shifted = [np.roll(images, step, axis=axis) for step in (-1, 1) for axis in (1, 2)]
more_images = np.concatenate([images, *shifted])
more_labels = np.concatenate([labels] * 5)
""",
    ),
    (
        "noisy copies",
        """
noise = np.random.default_rng(settings["seed"])
noisy = np.clip(more_images + noise.normal(0, 1.5, more_images.shape), 0, 16)
""",
    ),
    (
        "notes on every image",
        """
notes = [{"image": i, "label": int(label), "ink": float(image.sum()), "tags": []} for i, (image, label) in enumerate(zip(images, labels))]
""",
    ),
    (
        "tag the faint ones, in place",
        """
faint = [note for note in notes if note["ink"] < 250]
for note in faint:
    note["tags"].append("faint")
""",
    ),
    (
        "features: ink by row and column",
        """
def features(batch):
    rows, columns = batch.sum(axis=2), batch.sum(axis=1)
    return np.hstack([batch.reshape(len(batch), -1), rows, columns])
X = features(noisy)
y = more_labels
""",
    ),
    (
        "split",
        """
from sklearn.model_selection import train_test_split
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=settings["test share"], random_state=settings["seed"])
""",
    ),
    (
        "scale",
        """
from sklearn.preprocessing import StandardScaler
scaler = StandardScaler().fit(X_train)
Z_train, Z_test = scaler.transform(X_train), scaler.transform(X_test)
""",
    ),
    (
        "a registry of models",
        """
models, scores = {}, {}
def judge(name):
    models[name].fit(Z_train, y_train)
    scores[name] = float(models[name].score(Z_test, y_test))
    history.append((name, scores[name]))
""",
    ),
    (
        "a first guess",
        """
from sklearn.neighbors import NearestCentroid
models["centroid"] = NearestCentroid()
judge("centroid")
""",
    ),
    (
        "naive Bayes",
        """
from sklearn.naive_bayes import GaussianNB
models["bayes"] = GaussianNB()
judge("bayes")
""",
    ),
    (
        "linear model",
        """
from sklearn.linear_model import SGDClassifier
models["linear"] = SGDClassifier(random_state=settings["seed"], max_iter=30, tol=None)
judge("linear")
""",
    ),
    (
        "forest",
        """
from sklearn.ensemble import RandomForestClassifier
models["forest"] = RandomForestClassifier(30, max_depth=12, random_state=settings["seed"], n_jobs=1)
judge("forest")
""",
    ),
    (
        "what matters to the forest",
        """
weights = pd.Series(models["forest"].feature_importances_).sort_values(ascending=False)
""",
    ),
    (
        "fewer dimensions",
        """
from sklearn.decomposition import PCA
pca = PCA(2, random_state=settings["seed"]).fit(Z_train)
plane = pca.transform(Z_test)
""",
    ),
    (
        "a figure of the plane",
        """
from matplotlib.figure import Figure
figure = Figure(figsize=(5, 4))
axes = figure.subplots()
axes.scatter(plane[:, 0], plane[:, 1], c=y_test, s=4)
axes.set_title("digits in two dimensions")
""",
    ),
    (
        "predictions of all models",
        """
predictions = pd.DataFrame({name: model.predict(Z_test) for name, model in models.items()})
predictions["truth"] = y_test
""",
    ),
    (
        "who errs where",
        """
wrong = predictions[predictions["forest"] != predictions["truth"]]
confusion = pd.crosstab(predictions["truth"], predictions["forest"])
""",
    ),
    (
        "train the linear model further, in place",
        """
for _ in range(3):
    models["linear"].partial_fit(Z_train, y_train)
scores["linear"] = float(models["linear"].score(Z_test, y_test))
""",
    ),
    (
        "a vote",
        """
from scipy.stats import mode
vote = mode(predictions[["bayes", "linear", "forest"]].to_numpy(), axis=1).mode
scores["vote"] = float((vote == y_test).mean())
""",
    ),
    (
        "name the best",
        """
best = models[max(models, key=lambda name: scores[name])]
""",
    ),
    (
        "a second figure",
        """
bars = Figure(figsize=(5, 3))
bars.subplots().bar(list(scores), list(scores.values()))
""",
    ),
    (
        "correct a label, in three places",
        """
notes[5]["label"] = 9
notes[5]["tags"].append("corrected")
labels[5] = 9
table.loc[5, "label"] = 9
""",
    ),
    (
        "look around",
        """
_ = (table.shape, summary.loc["mean"].max(), best.get_params(), len(faint))
""",
    ),
    (
        "clean up",
        """
del shifted, Z_train, Z_test, plane
settings["done"] = True
""",
    ),
]
