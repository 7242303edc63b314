//! An adapter for a component dependency that does not inherit the host's interfaces.
//!
//! Spin 4.1 has an adapter of its own, which answers as this one does: no store can be opened (`access-denied`), and no variable
//! is defined (`undefined`). The methods of an open store are never called.
#![cfg(target_os = "wasi")]

spin_sdk::wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package loopless:deny-adapter;

        world deny-adapter {
            export spin:key-value/key-value@3.0.0;
            export spin:variables/variables@3.0.0;
            export fermyon:spin/key-value@2.0.0;
            export fermyon:spin/variables@2.0.0;
            export wasi:keyvalue/store@0.2.0-draft2;
        }
    ",
    world: "loopless:deny-adapter/deny-adapter",
    runtime_path: "spin_sdk::wit_bindgen::rt",
    generate_all,
});

use spin_sdk::wit_bindgen::rt::async_support::{FutureReader, StreamReader};

use exports::fermyon::spin as two;
use exports::spin as three;
use exports::wasi::keyvalue::store as wasi;

struct Adapter;

export!(Adapter);

/// An open store, which never exists.
struct Opened;

impl three::key_value::key_value::Guest for Adapter {
    type Store = Opened;
}

impl three::key_value::key_value::GuestStore for Opened {
    async fn open(
        _: String,
    ) -> Result<three::key_value::key_value::Store, three::key_value::key_value::Error> {
        Err(three::key_value::key_value::Error::AccessDenied)
    }

    async fn get(&self, _: String) -> Result<Option<Vec<u8>>, three::key_value::key_value::Error> {
        unreachable!()
    }

    async fn set(&self, _: String, _: Vec<u8>) -> Result<(), three::key_value::key_value::Error> {
        unreachable!()
    }

    async fn delete(&self, _: String) -> Result<(), three::key_value::key_value::Error> {
        unreachable!()
    }

    async fn exists(&self, _: String) -> Result<bool, three::key_value::key_value::Error> {
        unreachable!()
    }

    async fn get_keys(
        &self,
    ) -> (
        StreamReader<String>,
        FutureReader<Result<(), three::key_value::key_value::Error>>,
    ) {
        unreachable!()
    }
}

impl three::variables::variables::Guest for Adapter {
    async fn get(name: String) -> Result<String, three::variables::variables::Error> {
        Err(three::variables::variables::Error::Undefined(name))
    }
}

impl two::key_value::Guest for Adapter {
    type Store = Opened;
}

impl two::key_value::GuestStore for Opened {
    fn open(_: String) -> Result<two::key_value::Store, two::key_value::Error> {
        Err(two::key_value::Error::AccessDenied)
    }

    fn get(&self, _: String) -> Result<Option<Vec<u8>>, two::key_value::Error> {
        unreachable!()
    }

    fn set(&self, _: String, _: Vec<u8>) -> Result<(), two::key_value::Error> {
        unreachable!()
    }

    fn delete(&self, _: String) -> Result<(), two::key_value::Error> {
        unreachable!()
    }

    fn exists(&self, _: String) -> Result<bool, two::key_value::Error> {
        unreachable!()
    }

    fn get_keys(&self) -> Result<Vec<String>, two::key_value::Error> {
        unreachable!()
    }
}

impl two::variables::Guest for Adapter {
    fn get(name: String) -> Result<String, two::variables::Error> {
        Err(two::variables::Error::Undefined(name))
    }
}

impl wasi::Guest for Adapter {
    type Bucket = Opened;

    fn open(_: String) -> Result<wasi::Bucket, wasi::Error> {
        Err(wasi::Error::AccessDenied)
    }
}

impl wasi::GuestBucket for Opened {
    fn get(&self, _: String) -> Result<Option<Vec<u8>>, wasi::Error> {
        unreachable!()
    }

    fn set(&self, _: String, _: Vec<u8>) -> Result<(), wasi::Error> {
        unreachable!()
    }

    fn delete(&self, _: String) -> Result<(), wasi::Error> {
        unreachable!()
    }

    fn exists(&self, _: String) -> Result<bool, wasi::Error> {
        unreachable!()
    }

    fn list_keys(&self, _: Option<String>) -> Result<wasi::KeyResponse, wasi::Error> {
        unreachable!()
    }
}
