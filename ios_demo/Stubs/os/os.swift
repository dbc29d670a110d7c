// A stand-in: see ../README.md for what it does not prove.

/// Bytes that the process may still take before the system ends it. iOS alone has it; here it is a figure of no machine.
public func os_proc_available_memory() -> Int { 3_000_000_000 }
