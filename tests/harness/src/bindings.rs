//! Spin's own interfaces and `wasi:keyvalue`, generated from the component's `wit/`.

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package loopless:host;

        world interfaces {
            import spin:key-value/key-value@3.0.0;
            import spin:variables/variables@3.0.0;
            import spin:redis/redis@3.0.0;
            import spin:sqlite/sqlite@3.1.0;
            import fermyon:spin/key-value@2.0.0;
            import fermyon:spin/redis@2.0.0;
            import fermyon:spin/sqlite@2.0.0;
            import fermyon:spin/variables@2.0.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
        }
    ",
    world: "loopless:host/interfaces",
    imports: { default: async | trappable },
    with: {
        "spin:key-value/key-value.store": crate::keyvalue::StoreHandle,
        "fermyon:spin/key-value.store": crate::keyvalue::StoreHandle,
        "spin:redis/redis.connection": crate::redis::host::ConnectionHandle,
        "fermyon:spin/redis.connection": crate::redis::host::ConnectionHandle,
        "spin:sqlite/sqlite.connection": crate::sqlite::host::DatabaseHandle,
        "fermyon:spin/sqlite.connection": crate::sqlite::host::DatabaseHandle,
        "wasi:keyvalue/store.bucket": crate::keyvalue::StoreHandle,
        "wasi:keyvalue/atomics.cas": crate::keyvalue::CasHandle,
    },
});
