import Foundation

/// Anonymous bytes of this process now: what a phone counts against an app, since it cannot be dropped and read again as the pages of a mapped
/// file can. On Apple's systems the physical footprint, which their limit is about; on Linux swapped pages count too, and `status` may lag by some
/// pages a thread.
public func processAnonymousBytes() -> Int? {
    #if canImport(Darwin)
    var info = task_vm_info_data_t()
    var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
    let result = withUnsafeMutablePointer(to: &info) {
        $0.withMemoryRebound(to: integer_t.self, capacity: Int(count)) { task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count) }
    }
    return result == KERN_SUCCESS ? Int(info.phys_footprint) : nil
    #else
    guard let resident = field("/proc/self/smaps_rollup", "Anonymous:") ?? field("/proc/self/status", "RssAnon:") else { return nil }
    return resident + (field("/proc/self/status", "VmSwap:") ?? 0)
    #endif
}

/// A field of a /proc file, there in kB, in bytes.
private func field(_ path: String, _ name: String) -> Int? {
    guard let bytes = try? OpenFile(URL(fileURLWithPath: path), O_RDONLY).read(at: 0, upTo: 1 << 14) else { return nil }
    let line = String(decoding: bytes, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix(name) }
    return line.flatMap { Int($0.filter { ("0"..."9").contains($0) }) }.map { $0 * 1024 }
}
