//! What the kernel tests share. They run as root inside a VM, by `cargo xtask test`.

/// The kernel that this test runs on, as in the matrix: "6.1", "6.12" or "7".
///
/// Panics where no such kernel was booted: a kernel test that is run elsewhere fails.
pub fn kernel() -> String {
    match std::env::var("IPVLAN_TEST_KERNEL") {
        Ok(kernel) => kernel,
        Err(_) => panic!("a kernel test outside its VM: run it by `cargo xtask test`"),
    }
}
