//! Buckets against object_store's own conformance suite and as places of repositories, on servers of this machine.
//!
//! One is moto, which imitates S3. Another is s3s-fs (`cargo install s3s-fs --features binary`, or say where it is by
//! `S3S_FS=/path/to/s3s-fs`): whether it honours conditional writes is for the race to find out. The third is Azurite, which
//! imitates Azure (`npm install -g azurite`). What is not installed is said.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod suite;

use chipmink_store::{Place, Publication, RemotePlace, Store, StoreError, StoreOptions};
use chipmink_testkit::toy::{self, Namespace};
use object_store::{ObjectStore, integration};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts moto on a port, one request at a time.
const MOTO_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/python/moto_server.py");
/// Starts Azurite on a port, and says `ready` when its container is there, or `absent`.
const AZURITE_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/python/azurite_server.py");
/// Name and secret of Azurite's account.
const AZURE_ACCOUNT: (&str, &str) = ("tests", "YSBrZXkgb2YgdGVzdHMsIGFuZCBvZiBub3RoaW5nIGVsc2U=");
/// Name and secret of a key.
const KEY: &str = "test";

/// A server, for the length of a test.
struct Server {
    child: Child,
    port: u16,
    _root: Option<tempfile::TempDir>,
}

fn python() -> String {
    std::env::var("PYO3_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts moto with the bucket `bucket`, if it is there.
    fn moto() -> Option<Self> {
        let python = python();
        let is_there =
            Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
        if !is_there.is_ok_and(|status| status.success()) {
            eprintln!("skipped: {python} has no moto; pip install 'moto[server]'");
            return None;
        }
        let port = free_port();
        let server = Server::start(Command::new(python).args([MOTO_SERVER, &port.to_string()]), port, None);
        assert!(server.put("/bucket").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
        Some(server)
    }

    /// Starts s3s-fs with the bucket `bucket`, if it is there.
    fn s3s_fs() -> Option<Self> {
        let program = std::env::var("S3S_FS").unwrap_or_else(|_| "s3s-fs".to_owned());
        if Command::new(&program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            eprintln!("skipped: there is no {program}; cargo install s3s-fs --features binary");
            return None;
        }
        let (port, root) = (free_port(), tempfile::tempdir().unwrap());
        std::fs::create_dir(root.path().join("bucket")).unwrap();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--access-key", KEY, "--secret-key", KEY]).arg(root.path());
        Some(Server::start(&mut command, port, Some(root)))
    }

    /// Starts Azurite with the container `container`, if it is there.
    fn azurite() -> Option<Self> {
        let port = free_port();
        let mut command = Command::new(python());
        command.args([AZURITE_SERVER, &port.to_string()]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Server { child: command.spawn().unwrap(), port, _root: None };
        let mut answer = String::new();
        BufReader::new(server.child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        if answer != "ready\n" {
            assert_eq!(answer, "absent\n", "{command:?} does not start");
            eprintln!("skipped: there is no azurite; npm install -g azurite");
            return None;
        }
        Some(server)
    }

    fn start(command: &mut Command, port: u16, root: Option<tempfile::TempDir>) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Server { child, port, _root: root };
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.child.try_wait().unwrap().is_none(), "{command:?} ended");
            assert!(Instant::now() < deadline, "{command:?} does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
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
        remote(place.with_options([("access_key_id", KEY), ("secret_access_key", KEY)]).unwrap())
    }

    fn azure_place(&self, prefix: &str) -> RemotePlace {
        let (account, key) = AZURE_ACCOUNT;
        let port = self.port;
        let url = format!("az://container/{prefix}?endpoint=http://127.0.0.1:{port}/{account}");
        let place = Place::parse(&url).unwrap();
        remote(place.with_options([("account_name", account), ("account_key", key)]).unwrap())
    }
}

fn remote(place: Place) -> RemotePlace {
    match place {
        Place::Remote(place) => place,
        other => panic!("{other}"),
    }
}

/// `lists_from`: whether the server knows lists that begin after a name.
fn conforms_to_the_trait(objects: &dyn ObjectStore, lists_from: bool) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        if lists_from {
            integration::put_get_delete_list(objects).await;
        }
        integration::get_opts(objects).await;
        integration::put_opts(objects, true).await;
        integration::list_uses_directories_correctly(objects).await;
        integration::list_with_delimiter(objects).await;
        integration::rename_and_copy(objects).await;
        integration::stream_get(objects).await;
    });
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn buckets_conform_to_the_object_store_trait_and_hold_repositories() {
    let Some(moto) = Server::moto() else { return };
    conforms_to_the_trait(&moto.place("").connect().unwrap(), true);

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

#[test]
fn a_bucket_conforms() {
    let Some(moto) = Server::moto() else { return };
    let place = || Place::Remote(moto.place("suite"));
    suite::conforms(&|| Store::open_or_create(place(), StoreOptions::default()).unwrap(), true);
}

#[test]
fn a_container_of_azure_conforms() {
    let Some(azurite) = Server::azurite() else { return };
    // Azurite does not, and nothing here asks for them.
    conforms_to_the_trait(&azurite.azure_place("trait").connect().unwrap(), false);
    let place = || Place::Remote(azurite.azure_place("suite"));
    suite::conforms(&|| Store::open_or_create(place(), StoreOptions::default()).unwrap(), true);
}

#[test]
fn another_server_conforms_as_far_as_it_can() {
    let Some(server) = Server::s3s_fs() else { return };
    let place = |prefix: &str| Place::Remote(server.place(prefix));
    match Store::create(place("raced"), StoreOptions::default()) {
        Ok(_) => {
            suite::conforms(&|| Store::open_or_create(place("raced"), StoreOptions::default()).unwrap(), true)
        }
        // Who vouches for being alone can use it all the same.
        Err(StoreError::Unconditional { .. }) => {
            let options = StoreOptions { single_writer: true, ..StoreOptions::default() };
            let open = || Store::open_or_create(place("alone"), options.clone()).unwrap();
            suite::versions_come_back(&open);
            toy::save(&open(), &suite::values(7, 100), "").unwrap();
            suite::what_is_dropped_gives_its_room_back(&open);
            assert!(open().verify(true).unwrap().is_clean());
        }
        Err(error) => panic!("{error}"),
    }
}
