//! Buckets against object_store's own conformance suite and as places of repositories, on a server of this machine.
//!
//! The server is moto, which imitates S3. Where it is not installed, these tests say so.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use chipmink_store::{Place, Publication, RemotePlace, Store, StoreError, StoreOptions};
use chipmink_testkit::toy::{self, Namespace};
use object_store::integration;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts it on a port, one request at a time.
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/python/moto_server.py");

/// A server, for the length of a test.
struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    /// Starts a server with the bucket `bucket`, if moto is there.
    fn start() -> Option<Self> {
        let python = std::env::var("PYO3_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let is_there =
            Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
        if !is_there.is_ok_and(|status| status.success()) {
            eprintln!("skipped: {python} has no moto; pip install 'moto[server]'");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(python)
            .args([SERVER, &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut moto = Moto { child, port };
        let deadline = Instant::now() + Duration::from_secs(120);
        while !moto.put("/bucket").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(moto.child.try_wait().unwrap().is_none(), "moto ended");
            assert!(Instant::now() < deadline, "moto does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(moto)
    }

    fn put(&self, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(
            connection,
            "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        )
        .ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn place(&self, prefix: &str) -> RemotePlace {
        let port = self.port.to_string();
        let url = format!("s3://bucket/{prefix}?endpoint=http://127.0.0.1:{port}&region=us-east-1");
        let place = Place::parse(&url).unwrap();
        let keys = [("access_key_id", "test"), ("secret_access_key", "test")];
        match place.with_options(keys).unwrap() {
            Place::Remote(place) => place,
            other => panic!("{other}"),
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn buckets_conform_to_the_object_store_trait_and_hold_repositories() {
    let Some(moto) = Moto::start() else { return };
    let objects = moto.place("").connect().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        integration::put_get_delete_list(&objects).await;
        integration::get_opts(&objects).await;
        integration::put_opts(&objects, true).await;
        integration::list_uses_directories_correctly(&objects).await;
        integration::list_with_delimiter(&objects).await;
        integration::rename_and_copy(&objects).await;
        integration::stream_get(&objects).await;
    });

    let place = || Place::Remote(moto.place("some/prefix"));
    let mut namespace = Namespace::new();
    let missing = Store::open(place(), StoreOptions::default()).unwrap_err();
    assert!(matches!(missing, StoreError::NoRepository { .. }), "{missing}");
    let store = Store::create(place(), StoreOptions::default()).unwrap();
    let mut versions = Vec::new();
    // Past a merge of indexes.
    for step in 0..20u8 {
        namespace.insert(format!("v{}", step % 7), vec![step; 100 + usize::from(step)]);
        versions.push((toy::save(&store, &namespace, "").unwrap(), namespace.clone()));
    }
    namespace.insert(
        "large".into(),
        (0..20u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
    );
    versions.push((toy::save(&store, &namespace, "").unwrap(), namespace.clone()));
    let reopened = Store::open(place(), StoreOptions::default()).unwrap();
    for (time, expected) in versions.iter().rev().step_by(5) {
        assert_eq!(&toy::load(&reopened, *time).unwrap(), expected);
    }
    assert!(reopened.verify(true).unwrap().is_clean());
    assert!(matches!(Store::create(place(), StoreOptions::default()), Err(StoreError::AlreadyThere { .. })));

    // Of two writers that know nothing of each other one is told, and its packs can still be published.
    let newer = toy::save(&store, &namespace, "").unwrap();
    let mut transaction = reopened.begin();
    let publication = toy::write(&reopened, &mut transaction, &versions[0].1, "").unwrap();
    let error = transaction.publish(&publication).unwrap_err();
    assert!(matches!(error, StoreError::RefMoved { found: Some(found), .. } if found == newer), "{error}");
    let time = transaction.publish(&Publication { expected: Some(newer), ..publication }).unwrap();
    store.refresh().unwrap();
    assert_eq!(toy::load(&store, time).unwrap(), versions[0].1);
    assert_eq!(toy::load(&reopened, newer).unwrap(), namespace);
}
