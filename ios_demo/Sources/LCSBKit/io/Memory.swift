import Foundation

/// Memory that does not move, given back with the last that refers to it.
private final class Allocation {
    let pointer: UnsafeMutableRawPointer

    init(_ pointer: UnsafeMutableRawPointer) { self.pointer = pointer }

    deinit { free(pointer) }
}

private final class Mapping {
    let start: UnsafeMutableRawPointer
    let length: Int

    init(_ start: UnsafeMutableRawPointer, _ length: Int) { (self.start, self.length) = (start, length) }

    deinit { munmap(start, length) }
}

private let beyond = 64  // bytes after what is allocated, which a runtime's vector instructions may read

/// Bytes in place, which programs read and write: of an allocation or of a mapped file, whose last user gives it back. Parts share the memory.
/// From one thread at a time.
public struct Bytes: @unchecked Sendable {
    public let pointer: UnsafeMutableRawPointer
    public let count: Int
    private let owner: AnyObject

    private init(_ pointer: UnsafeMutableRawPointer, _ count: Int, _ owner: AnyObject) {
        (self.pointer, self.count, self.owner) = (pointer, count, owner)
    }

    /// Zeroed. Throws MEMORY_TOO_SMALL.
    public init(count: Int) throws {
        guard count >= 0, count <= Int.max - beyond, let pointer = calloc(count + beyond, 1) else {
            let message = "\(count) bytes cannot be reserved; close other apps, or keep fewer layers"
            throw LcsbError(.memoryTooSmall, message, ["\(count)"])
        }
        self.init(pointer, count, Allocation(pointer))
    }

    /// `count` bytes of an open file, from `offset` on. `writable`: what is written goes to the file, else writing ends the process.
    init(mapping descriptor: Int32, offset: Int, count: Int, writable: Bool = false) throws {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let before = offset % page
        let length = max(before + count, 1)
        let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
        let start = mmap(nil, length, protection, MAP_SHARED, descriptor, off_t(offset - before))
        guard let start, start != MAP_FAILED else { throw IoError(errno) }
        self.init(start + before, count, Mapping(start, length))
    }

    public func part(_ start: Int, _ count: Int) -> Bytes {
        precondition(start >= 0 && count >= 0 && start <= self.count - count, "outside of \(self.count) bytes")
        return Bytes(pointer + start, count, owner)
    }

    /// All of it as float32.
    public var floats: Floats { Floats(self) }

    public var raw: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: pointer, count: count) }

    /// Asks the system to read it ahead.
    func willNeed() {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let before = Int(bitPattern: pointer) % page
        posix_madvise(pointer - before, before + count, POSIX_MADV_WILLNEED)
    }
}

/// float32 values in place. Parts share the memory. From one thread at a time.
public struct Floats: @unchecked Sendable {
    public let pointer: UnsafeMutablePointer<Float>
    public let count: Int
    let bytes: Bytes

    init(_ bytes: Bytes) {
        (self.bytes, count) = (bytes, bytes.count / MemoryLayout<Float>.size)
        pointer = bytes.pointer.assumingMemoryBound(to: Float.self)
    }

    /// Zeroed. Throws MEMORY_TOO_SMALL.
    public init(count: Int) throws {
        let (size, overflow) = count.multipliedReportingOverflow(by: MemoryLayout<Float>.size)
        try self.init(Bytes(count: overflow ? Int.max : size))
    }

    public func part(_ start: Int, _ count: Int) -> Floats {
        Floats(bytes.part(start * MemoryLayout<Float>.size, count * MemoryLayout<Float>.size))
    }

    public subscript(index: Int) -> Float {
        get {
            precondition(index >= 0 && index < count)
            return pointer[index]
        }
        nonmutating set {
            precondition(index >= 0 && index < count)
            pointer[index] = newValue
        }
    }

    /// Copies all of `source` over all of this.
    public func copy(from source: Floats) {
        precondition(source.count == count, "expected \(count) values, found \(source.count)")
        memmove(pointer, source.pointer, count * MemoryLayout<Float>.size)
    }

    public func copy(from source: [Float]) {
        precondition(source.count == count, "expected \(count) values, found \(source.count)")
        source.withUnsafeBufferPointer { if let base = $0.baseAddress { memmove(pointer, base, count * MemoryLayout<Float>.size) } }
    }

    public func fill(_ value: Float) { pointer.update(repeating: value, count: count) }

    public var array: [Float] { Array(UnsafeBufferPointer(start: pointer, count: count)) }

    // Arithmetic in place, element by element in float32.

    func scale(_ factor: Float) { for i in 0..<count { pointer[i] *= factor } }

    func add(_ added: Floats) {
        precondition(added.count == count)
        for i in 0..<count { pointer[i] += added.pointer[i] }
    }
}
