//! What a save costs beside the walk: `cargo test --release -p chipmink --test repository -- --ignored --nocapture timing`

use crate::random_saves::open;
use chipmink::SaveRequest;
use chipmink_digest::digest;
use chipmink_types::{
    BlobKind, BlobSink, Component, Export, GraphSource, PodKey, PodRecord, VariableRoot, WalkError,
    WalkOutcome, WalkRequest, WalkedPod,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Gives outcomes that were made before, so that only the facade is timed.
struct Ready {
    variables: Vec<(String, VariableRoot)>,
    components: Vec<Component>,
    is_unchanged: bool,
}

impl Ready {
    fn new(components: usize, pods: usize) -> Self {
        let mut ready = Ready { variables: Vec::new(), components: Vec::new(), is_unchanged: false };
        let mut key = 0;
        for at in 0..components {
            let name = format!("variable_{at}");
            let mut component =
                Component { names: vec![(name.clone(), PodKey(key + 1), 0)], pods: Vec::new() };
            for _ in 0..pods {
                key += 1;
                let record = record(key, &[]);
                component.pods.push(WalkedPod { key: PodKey(key), record: Arc::new(record) });
            }
            let all = component.pods[1..].iter().map(|pod| pod.key).collect::<Vec<_>>();
            component.pods[0].record = Arc::new(record(component.pods[0].key.0, &all));
            ready.variables.push((name, VariableRoot::Stored));
            ready.components.push(component);
        }
        ready
    }

    fn change(&mut self, component: usize, pod: usize) {
        let pod = &mut self.components[component].pods[pod];
        pod.record =
            Arc::new(PodRecord { byte_len: pod.record.byte_len + 1, ..PodRecord::clone(&pod.record) });
    }
}

fn record(key: u64, dependencies: &[PodKey]) -> PodRecord {
    PodRecord {
        digest: digest(&key.to_le_bytes()),
        byte_len: 8,
        exports: vec![Export::Root(0)],
        dependencies: dependencies.to_vec(),
        globals: Vec::new(),
        shapes: Vec::new(),
        regions: Vec::new(),
        side: None,
        names: Vec::new(),
    }
}

impl GraphSource for Ready {
    fn walk(&mut self, _: &WalkRequest<'_>, sink: &mut dyn BlobSink) -> Result<WalkOutcome, WalkError> {
        let _ = (BlobKind::Pod, sink);
        if self.is_unchanged {
            return Ok(WalkOutcome { is_unchanged: true, ..WalkOutcome::default() });
        }
        Ok(WalkOutcome {
            variables: self.variables.clone(),
            components: self.components.clone(),
            ..WalkOutcome::default()
        })
    }

    fn adopt(&mut self, _: WalkOutcome) {}

    fn discard(&mut self, _: WalkOutcome) {}

    fn reset(&mut self) {}
}

fn time(repository: &chipmink::Repository, source: &mut Ready) -> Duration {
    let prepared = repository.prepare(source, &SaveRequest::default()).unwrap();
    let start = Instant::now();
    let published = prepared.publish();
    let taken = start.elapsed();
    published.finish(source).unwrap();
    taken
}

#[expect(clippy::print_stdout, reason = "it is what this is for")]
fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    println!("{what:60} {:>10.1?} (fastest {:.1?})", times[times.len() / 2], times[0]);
}

#[test]
#[ignore = "a measurement, not a test"]
fn timing() {
    for (components, pods) in [(10_000, 1), (1_000, 100), (1, 100_000)] {
        let directory = tempfile::tempdir().unwrap();
        let repository = open(directory.path());
        let mut source = Ready::new(components, pods);
        let shape = format!("{components} components of {pods} pods");
        report(&format!("{shape}: first"), &mut [time(&repository, &mut source)]);
        let many = |source: &mut Ready, change: bool| -> Vec<Duration> {
            (0..20)
                .map(|at| {
                    if change {
                        source.change(at * 37 % components, at * 41 % pods);
                    }
                    time(&repository, source)
                })
                .collect()
        };
        report(&format!("{shape}: all clean"), &mut many(&mut source, false));
        report(&format!("{shape}: one pod changed"), &mut many(&mut source, true));
        let newest = repository.newest("main").unwrap();
        let mut plans: Vec<Duration> = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            let plan = repository.plan(newest, None).unwrap();
            plans.push(start.elapsed());
            assert_eq!(plan.pods.len(), components * pods);
        }
        report(&format!("{shape}: plan of all"), &mut plans);
        let one = [source.variables[0].0.clone()];
        let start = Instant::now();
        repository.plan(newest, Some(&one)).unwrap();
        report(&format!("{shape}: plan of one"), &mut [start.elapsed()]);
        source.is_unchanged = true;
        report(&format!("{shape}: unchanged"), &mut many(&mut source, false));
    }
}
