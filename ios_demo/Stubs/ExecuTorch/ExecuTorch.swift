import Foundation

// What stands for ExecuTorch's module of this name where the library is not to be had: what LCSBExecuTorch uses of it, under the library's
// names. It runs nothing; tests give a Module what it does.

public enum DataType: Int8, Sendable {
    case byte, char, short, int, long, half, float, double
}

public enum ModuleLoadMode: Int, Sendable {
    case file, mmap
}

public enum ModuleVerification: UInt8, Sendable {
    case minimal, internalConsistency
}

public enum ValueTag: UInt32, Sendable {
    case none, tensor
}

/// Over memory of the caller's, who keeps it.
public final class AnyTensor {
    public let dataType: DataType
    public let shape: [Int]
    private let pointer: UnsafeMutableRawPointer

    public init(bytesNoCopy pointer: UnsafeMutableRawPointer, shape: [Int], dataType: DataType) {
        (self.pointer, self.shape, self.dataType) = (pointer, shape, dataType)
    }

    public func bytes(_ handler: (_ pointer: UnsafeRawPointer, _ count: Int, _ dataType: DataType) -> Void) {
        handler(pointer, shape.reduce(1, *), dataType)
    }
}

public protocol ValueConvertible {
    func asValue() -> Value
}

public final class Value: ValueConvertible {
    public let anyTensor: AnyTensor?

    public init(_ tensor: AnyTensor) { anyTensor = tensor }

    public func asValue() -> Value { self }
}

public final class TensorMetadata {
    public let dataType: DataType
    public let shape: [Int]

    public init(_ dataType: DataType, _ shape: [Int]) { (self.dataType, self.shape) = (dataType, shape) }
}

/// `inputs`, `outputs`: nil for what is no tensor.
public final class MethodMetadata {
    public let inputValueTags: [ValueTag]
    public let outputValueTags: [ValueTag]
    public let inputTensorMetadata: [Int: TensorMetadata]
    public let outputTensorMetadata: [Int: TensorMetadata]

    public init(_ inputs: [TensorMetadata?], _ outputs: [TensorMetadata?]) {
        func tags(_ tensors: [TensorMetadata?]) -> [ValueTag] { tensors.map { $0 == nil ? .none : .tensor } }
        func numbered(_ tensors: [TensorMetadata?]) -> [Int: TensorMetadata] {
            Dictionary(uniqueKeysWithValues: tensors.enumerated().compactMap { at, x in x.map { (at, $0) } })
        }
        (inputValueTags, outputValueTags) = (tags(inputs), tags(outputs))
        (inputTensorMetadata, outputTensorMetadata) = (numbered(inputs), numbered(outputs))
    }
}

open class Module {
    public let filePath: String
    public let loadMode: ModuleLoadMode

    public init(filePath: String, loadMode: ModuleLoadMode = .file) { (self.filePath, self.loadMode) = (filePath, loadMode) }

    open func load(with verification: ModuleVerification) throws { throw absent }

    open func load(_ method: String) throws { throw absent }

    open func methodNames() throws -> Set<String> { throw absent }

    open func methodMetadata(_ method: String) throws -> MethodMetadata { throw absent }

    open func execute(_ method: String, _ inputs: [any ValueConvertible]) throws -> [Value] { throw absent }
}

private let absent = NSError(domain: "ExecuTorch", code: 34, userInfo: [NSLocalizedDescriptionKey: "a stand-in runs nothing"])
