use std::process::ExitCode;

fn main() -> ExitCode {
    ipvlan_ctl::cli::main()
}
