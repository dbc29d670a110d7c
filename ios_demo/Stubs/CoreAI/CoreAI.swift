import Foundation
import Metal

// What stands for Core AI: what LCSBKit uses of it, under its names. It computes nothing; a test gives a model what it does.

// Of Swift's own library from 6.2 on, under the same names.

public struct RawSpan {
    fileprivate let buffer: UnsafeRawBufferPointer
}

public struct MutableRawSpan: ~Copyable {
    fileprivate let buffer: UnsafeMutableRawBufferPointer
}

extension UnsafeRawBufferPointer {
    public var bytes: RawSpan { RawSpan(buffer: self) }
}

extension UnsafeMutableRawBufferPointer {
    public var mutableBytes: MutableRawSpan { MutableRawSpan(buffer: self) }
}

public func _overrideLifetime<Dependent, Source: AnyObject>(_ dependent: consuming Dependent, borrowing source: Source) -> Dependent {
    dependent
}

// Core AI's.

public enum ComputeUnitKind: Hashable, Sendable {
    case cpu, gpu, neuralEngine
}

public struct SpecializationOptions: Hashable, Sendable {
    public static let `default` = SpecializationOptions(allowed: [.cpu, .gpu, .neuralEngine], preferred: nil)
    public static let cpuOnly = SpecializationOptions(allowed: [.cpu], preferred: nil)

    public let allowedComputeUnitKinds: Set<ComputeUnitKind>
    public let preferredComputeUnitKind: ComputeUnitKind?

    private init(allowed: Set<ComputeUnitKind>, preferred: ComputeUnitKind?) {
        (allowedComputeUnitKinds, preferredComputeUnitKind) = (allowed, preferred)
    }

    public init(preferredComputeUnitKind kind: ComputeUnitKind) { self.init(allowed: [.cpu, .gpu, .neuralEngine], preferred: kind) }
}

public struct NDArray {
    public enum ScalarType: Hashable, Sendable, CaseIterable {
        case bool, int8, uint8, int32, int64, float16, float32, float64
    }

    public struct InterleaveLayout: Equatable, Sendable {}

    public struct RawView {
        fileprivate let seen: StandInArray

        public init(
            bytes: RawSpan, byteOffset: Int = 0, scalarType: ScalarType, shape: [Int], strides: [Int] = [],
            interleaveLayout: InterleaveLayout? = nil
        ) {
            seen = StandInArray(
                pointer: UnsafeMutableRawPointer(mutating: bytes.buffer.baseAddress!) + byteOffset, byteCount: bytes.buffer.count,
                scalarType: scalarType, shape: shape, ofBuffer: false)
        }

        public init(
            metalBuffer: any MTLBuffer, byteOffset: Int = 0, scalarType: ScalarType, shape: [Int], strides: [Int] = [],
            interleaveLayout: InterleaveLayout? = nil
        ) {
            seen = StandInArray(
                pointer: metalBuffer.contents() + byteOffset, byteCount: metalBuffer.length - byteOffset, scalarType: scalarType, shape: shape,
                ofBuffer: true)
        }
    }

    public struct MutableRawView {
        fileprivate let seen: StandInArray

        public init(
            mutableBytes: consuming MutableRawSpan, byteOffset: Int = 0, scalarType: ScalarType, shape: [Int], strides: [Int] = [],
            interleaveLayout: InterleaveLayout? = nil
        ) {
            seen = StandInArray(
                pointer: mutableBytes.buffer.baseAddress! + byteOffset, byteCount: mutableBytes.buffer.count, scalarType: scalarType,
                shape: shape, ofBuffer: false)
        }
    }
}

public struct NDArrayDescriptor: Equatable, Sendable {
    public let shape: [Int]
    public let scalarType: NDArray.ScalarType

    public init(standIn shape: [Int], _ scalarType: NDArray.ScalarType) { (self.shape, self.scalarType) = (shape, scalarType) }
}

public struct ImageDescriptor: Equatable, Sendable {
    public init(standIn: Void) {}
}

public struct InferenceValue {
    public enum Descriptor: Sendable {
        case image(ImageDescriptor)
        case ndArray(NDArrayDescriptor)
    }
}

public struct InferenceFunctionDescriptor: Sendable {
    public let name: String
    public let inputNames: [String]
    public let outputNames: [String]
    public let stateNames: [String]
    private let inputs: [String: InferenceValue.Descriptor]
    private let outputs: [String: InferenceValue.Descriptor]

    public init(
        standIn name: String, inputs: [(String, InferenceValue.Descriptor)], outputs: [(String, InferenceValue.Descriptor)],
        states: [String] = []
    ) {
        (self.name, stateNames, inputNames, outputNames) = (name, states, inputs.map(\.0), outputs.map(\.0))
        self.inputs = Dictionary(uniqueKeysWithValues: inputs)
        self.outputs = Dictionary(uniqueKeysWithValues: outputs)
    }

    public func inputDescriptor(of name: String) -> InferenceValue.Descriptor? { inputs[name] }

    public func outputDescriptor(of name: String) -> InferenceValue.Descriptor? { outputs[name] }
}

public struct InferenceFunction: @unchecked Sendable {
    public let descriptor: InferenceFunctionDescriptor
    fileprivate let model: any StandInAIModel

    public struct Inputs {
        fileprivate var seen: [String: StandInArray] = [:]

        public init() {}

        public mutating func insert(_ rawView: consuming NDArray.RawView, for inputName: String) { seen[inputName] = rawView.seen }
    }

    public struct MutableViews {
        fileprivate var seen: [String: StandInArray] = [:]

        public init() {}

        public mutating func insert(_ mutableRawView: consuming NDArray.MutableRawView, for name: String) {
            seen[name] = mutableRawView.seen
        }
    }

    public struct Outputs {
        fileprivate let left: [String]

        public var names: some Collection<String> { left }
        public var count: Int { left.count }
    }

    /// Results that are given no view are left in what is returned.
    public func run(
        inputs: borrowing Inputs, states: consuming MutableViews = MutableViews(), outputViews: consuming MutableViews = MutableViews()
    ) async throws -> Outputs {
        await Task.yield()
        return Outputs(left: try model.run(descriptor.name, inputs.seen, outputViews.seen))
    }
}

public struct AIModel: @unchecked Sendable {
    private let model: any StandInAIModel

    public init(contentsOf url: URL, options: SpecializationOptions = .default) async throws {
        await Task.yield()
        guard let open = standInAIModels else {
            throw NSError(domain: "CoreAI", code: 1, userInfo: [NSLocalizedDescriptionKey: "a stand-in runs nothing"])
        }
        model = try open(url, options)
    }

    public var functionNames: [String] { model.functionNames }

    public func functionDescriptor(for name: String) -> InferenceFunctionDescriptor? { model.descriptor(name) }

    public func loadFunction(named name: String) throws -> InferenceFunction? {
        try model.load(name)
        return model.descriptor(name).map { InferenceFunction(descriptor: $0, model: model) }
    }
}

// What a test gives and sees.

/// Memory that a function was given. `ofBuffer`: by a Metal buffer, which ends `byteCount` behind `pointer`.
public struct StandInArray {
    public let pointer: UnsafeMutableRawPointer
    public let byteCount: Int
    public let scalarType: NDArray.ScalarType
    public let shape: [Int]
    public let ofBuffer: Bool
}

public protocol StandInAIModel: AnyObject {
    var functionNames: [String] { get }
    func descriptor(_ function: String) -> InferenceFunctionDescriptor?
    func load(_ function: String) throws

    /// Writes to `outputs`; the names of the results that it has no view for.
    func run(_ function: String, _ inputs: [String: StandInArray], _ outputs: [String: StandInArray]) throws -> [String]
}

/// How assets are opened.
nonisolated(unsafe) public var standInAIModels: ((URL, SpecializationOptions) throws -> any StandInAIModel)?
