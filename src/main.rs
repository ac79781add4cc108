//! The binary `skyledger`.

/// Folding and answering allocate many small things in several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    skyledger::run()
}
