import Foundation

/// Parameters and AdamW's moments, float32 [N] each.
public struct AdapterState: Sendable {
    public let adapter: Floats
    public let firstMoment: Floats
    public let secondMoment: Floats

    public init(adapter: Floats, firstMoment: Floats, secondMoment: Floats) {
        (self.adapter, self.firstMoment, self.secondMoment) = (adapter, firstMoment, secondMoment)
    }

    public var size: Int { adapter.count }

    func copy(from other: AdapterState) {
        adapter.copy(from: other.adapter)
        firstMoment.copy(from: other.firstMoment)
        secondMoment.copy(from: other.secondMoment)
    }
}

let statePrefix = ".state."  // what the name of its file begins with, as long as it has one
private let readBeyond = 64  // bytes after the last value, which a runtime's vector instructions may read

/// A state of zeros, `size` elements a buffer, in a mapped file in `directory`: the system may write its pages out, so it takes no
/// anonymous memory. The file has no name and goes with the state.
///
/// Its space is taken at once, by writing it: storing to a mapped file on a full disk would end the process. Throws STORAGE_FULL or
/// STORAGE_FAILED.
func mappedState(_ directory: URL, _ size: Int) throws -> AdapterState {
    let bytes = size * floatBytes
    let file = directory.appendingPathComponent(statePrefix + UUID().uuidString.prefix(8).lowercased())
    return try storing(directory) {
        try makeDirectories(directory)
        let opened = try OpenFile(file, O_RDWR | O_CREAT | O_EXCL)
        unlink(file.path)
        try reserve(opened, 3 * bytes + readBeyond)
        let mapped = try Bytes(mapping: opened.descriptor, offset: 0, count: 3 * bytes + readBeyond, writable: true)
        let (adapter, first, second) = (mapped.part(0, bytes), mapped.part(bytes, bytes), mapped.part(2 * bytes, bytes))
        return AdapterState(adapter: adapter.floats, firstMoment: first.floats, secondMoment: second.floats)
    }
}

private func reserve(_ file: OpenFile, _ size: Int) throws {
    let zeros = [UInt8](repeating: 0, count: min(size, 1 << 20))
    var left = size
    while left > 0 {
        let count = min(left, zeros.count)
        try zeros.withUnsafeBytes { try file.write(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
        left -= count
    }
}
