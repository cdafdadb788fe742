//! [`Runner`]: where the futures of an object store run.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How the futures of a store are run.
#[derive(Clone, Debug)]
pub(crate) enum Runner {
    /// They are ready when polled: no thread is needed, and a fork harms nothing.
    InPlace,
    /// They need timers or sockets; the runtime starts at first use.
    Runtime(Arc<Threads>),
}

/// The runtime of a store, once it was needed.
#[derive(Debug)]
pub(crate) struct Threads {
    runtime: OnceLock<Runtime>,
    process: u32,
}

impl Default for Threads {
    fn default() -> Self {
        Threads { runtime: OnceLock::new(), process: std::process::id() }
    }
}

impl Threads {
    fn runtime(&self) -> &Runtime {
        self.runtime.get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("chipmink-store")
                .enable_all()
                .build()
                .expect("threads can be started")
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if self.process == std::process::id() {
            // A request that hangs must not hold up the program.
            runtime.shutdown_background();
        } else {
            // A forked child has none of the threads, and waiting for them would last for ever.
            std::mem::forget(runtime);
        }
    }
}

/// A future that was begun.
#[derive(Debug)]
pub(crate) enum Begun<T> {
    Done(T),
    Running(JoinHandle<T>),
}

impl Runner {
    /// Waits for a future.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        match self {
            Runner::InPlace => futures::executor::block_on(future),
            Runner::Runtime(threads) => threads.runtime().block_on(future),
        }
    }

    /// Lets a future run beside its caller, if there are threads for it.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Begun<T> {
        match self {
            Runner::InPlace => Begun::Done(futures::executor::block_on(future)),
            Runner::Runtime(threads) => Begun::Running(threads.runtime().spawn(future)),
        }
    }

    /// Waits for what was begun; `None` if it panicked.
    pub(crate) fn wait<T>(&self, begun: Begun<T>) -> Option<T> {
        match begun {
            Begun::Done(done) => Some(done),
            Begun::Running(handle) => self.run(handle).ok(),
        }
    }
}
