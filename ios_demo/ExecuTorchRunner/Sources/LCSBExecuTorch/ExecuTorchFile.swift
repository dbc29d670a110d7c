import ExecuTorch
import Foundation
@_spi(ExecuTorch) import LCSBKit

/// Lets this process run bundles of target `executorch`, on stock ExecuTorch. Call it when the app starts.
public func includeExecuTorch() {
    // Pages are read when a method first needs them.
    registerExecuTorch { try ExecuTorchFile(Module(filePath: $0.path, loadMode: .mmap)) }
}

private let dataTypes: [String: DataType] = ["float32": .float, "float16": .half, "int64": .long, "uint8": .byte, "int8": .char]

/// The library's module, whose methods have an arena each.
final class ExecuTorchFile: MethodFile {
    private let module: Module

    init(_ module: Module) throws {
        self.module = module
        try module.load(with: .internalConsistency)  // the file may come from anywhere
    }

    func methods() throws -> Set<String> { try module.methodNames() }

    func signature(_ method: String) throws -> (inputs: [MethodTensor], outputs: [MethodTensor]) {
        let metadata = try module.methodMetadata(method)
        return (
            described(metadata.inputValueTags.count, metadata.inputTensorMetadata),
            described(metadata.outputValueTags.count, metadata.outputTensorMetadata)
        )
    }

    func load(_ method: String) throws { try module.load(method) }

    func value(_ tensor: MethodTensor, _ memory: UnsafeMutableRawPointer) throws -> AnyObject {
        guard let dataType = dataTypes[tensor.dtype] else {
            throw LcsbError(.bundleUnreadable, "executorch takes no \(tensor.dtype); export the bundle again")
        }
        return Value(AnyTensor(bytesNoCopy: memory, shape: tensor.shape, dataType: dataType))
    }

    func execute(_ method: String, _ values: [AnyObject]) throws -> [(tensor: MethodTensor, data: UnsafeRawPointer)] {
        let results: [Value] = try module.execute(method, values.map { $0 as! Value })
        return results.map { result in
            guard let tensor = result.anyTensor else { preconditionFailure("its signature has tensors only") }
            var data: UnsafeRawPointer?
            tensor.bytes { pointer, _, _ in data = pointer }
            return (described(tensor.dataType, tensor.shape), data!)
        }
    }

    private func described(_ count: Int, _ tensors: [Int: TensorMetadata]) -> [MethodTensor] {
        (0..<count).map { at in tensors[at].map { described($0.dataType, $0.shape) } ?? ("no tensor", []) }
    }

    private func described(_ dataType: DataType, _ shape: [Int]) -> MethodTensor {
        (dataTypes.first { $0.value == dataType }?.key ?? "type \(dataType.rawValue)", shape)
    }
}
