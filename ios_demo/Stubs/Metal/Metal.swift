import Foundation

// What stands for Metal: buffers over the host's memory, which is all that LCSBKit asks of it.

public struct MTLResourceOptions: OptionSet, Sendable {
    public let rawValue: UInt

    public init(rawValue: UInt) { self.rawValue = rawValue }

    public static let storageModeShared = MTLResourceOptions([])
}

public protocol MTLBuffer: AnyObject {
    var length: Int { get }
    func contents() -> UnsafeMutableRawPointer
}

public protocol MTLDevice: AnyObject {
    func makeBuffer(
        bytesNoCopy pointer: UnsafeMutableRawPointer, length: Int, options: MTLResourceOptions,
        deallocator: ((UnsafeMutableRawPointer, Int) -> Void)?
    ) -> (any MTLBuffer)?
}

private final class Buffer: MTLBuffer {
    let length: Int
    private let pointer: UnsafeMutableRawPointer

    init(_ pointer: UnsafeMutableRawPointer, _ length: Int) { (self.pointer, self.length) = (pointer, length) }

    func contents() -> UnsafeMutableRawPointer { pointer }
}

/// As Metal: whole pages only.
private final class Device: MTLDevice {
    func makeBuffer(
        bytesNoCopy pointer: UnsafeMutableRawPointer, length: Int, options: MTLResourceOptions,
        deallocator: ((UnsafeMutableRawPointer, Int) -> Void)?
    ) -> (any MTLBuffer)? {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        return Int(bitPattern: pointer) % page == 0 && length % page == 0 ? Buffer(pointer, length) : nil
    }
}

/// What a test sets: whether there is a device.
nonisolated(unsafe) public var standInHasDevice = true

public func MTLCreateSystemDefaultDevice() -> (any MTLDevice)? { standInHasDevice ? Device() : nil }
