import Foundation

// What stands for Core ML: what LCSBKit uses of it, under its names. It computes nothing; a test gives a model what it does.

// Of Objective-C's runtime, where there is one.
public func autoreleasepool<Result>(invoking body: () throws -> Result) rethrows -> Result { try body() }

// Core ML's.

public enum MLMultiArrayDataType: Int, Sendable {
    case double = 65600
    case float32 = 65568
    case float16 = 65552
    case int32 = 131104
}

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

public final class MLMultiArray {
    public let dataPointer: UnsafeMutableRawPointer
    public let shape: [NSNumber]
    public let strides: [NSNumber]
    public let dataType: MLMultiArrayDataType
    private let deallocator: ((UnsafeMutableRawPointer) -> Void)?

    public init(
        dataPointer: UnsafeMutableRawPointer, shape: [NSNumber], dataType: MLMultiArrayDataType, strides: [NSNumber],
        deallocator: ((UnsafeMutableRawPointer) -> Void)? = nil
    ) throws {
        (self.dataPointer, self.shape, self.strides) = (dataPointer, shape, strides)
        (self.dataType, self.deallocator) = (dataType, deallocator)
    }

    deinit { deallocator?(dataPointer) }

    public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        let width = dataType == .double ? 8 : dataType == .float16 ? 2 : 4
        let last = zip(shape, strides).reduce(0) { $0 + ($1.0.intValue - 1) * $1.1.intValue }
        return try body(UnsafeRawBufferPointer(start: dataPointer, count: (last + 1) * width))
    }
}

public final class MLFeatureValue {
    public let multiArrayValue: MLMultiArray?

    public init(multiArray: MLMultiArray?) { multiArrayValue = multiArray }
}

public protocol MLFeatureProvider: AnyObject {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public final class MLDictionaryFeatureProvider: MLFeatureProvider {
    private let values: [String: MLFeatureValue]

    public init(dictionary: [String: Any]) throws {
        values = try dictionary.mapValues { value in
            guard let array = value as? MLMultiArray else {
                throw NSError(domain: "CoreML", code: 1, userInfo: [NSLocalizedDescriptionKey: "no multiarray"])
            }
            return MLFeatureValue(multiArray: array)
        }
    }

    public var featureNames: Set<String> { Set(values.keys) }

    public func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

public final class MLPredictionOptions {
    public var outputBackings: [String: Any] = [:]

    public init() {}
}

public final class MLModelConfiguration {
    public var computeUnits = MLComputeUnits.all
    public var functionName: String?

    public init() {}
}

public final class MLMultiArrayConstraint {
    public let shape: [NSNumber]
    public let dataType: MLMultiArrayDataType

    public init(standIn shape: [Int], _ dataType: MLMultiArrayDataType) {
        (self.shape, self.dataType) = (shape.map { NSNumber(value: $0) }, dataType)
    }
}

/// `multiArrayConstraint`: nil of what is no array.
public final class MLFeatureDescription {
    public let multiArrayConstraint: MLMultiArrayConstraint?

    public init(standIn constraint: MLMultiArrayConstraint?) { multiArrayConstraint = constraint }
}

public final class MLModelDescription {
    public let inputDescriptionsByName: [String: MLFeatureDescription]
    public let outputDescriptionsByName: [String: MLFeatureDescription]

    public init(standIn inputs: [String: MLFeatureDescription], _ outputs: [String: MLFeatureDescription]) {
        (inputDescriptionsByName, outputDescriptionsByName) = (inputs, outputs)
    }
}

public final class MLModel {
    private let function: any StandInFunction

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        function = try standIn().load(url, configuration.functionName, configuration.computeUnits)
    }

    public static func compileModel(at modelURL: URL) async throws -> URL {
        await Task.yield()
        return try standIn().compile(modelURL)
    }

    public var modelDescription: MLModelDescription { function.description }

    public func prediction(from input: any MLFeatureProvider, options: MLPredictionOptions) throws -> any MLFeatureProvider {
        var inputs: [String: MLMultiArray] = [:]
        for name in input.featureNames { inputs[name] = input.featureValue(for: name)?.multiArrayValue }
        return try MLDictionaryFeatureProvider(
            dictionary: function.predict(inputs, options.outputBackings.compactMapValues { $0 as? MLMultiArray }))
    }
}

public final class MLModelAsset {
    private let url: URL

    public init(url compiledModelURL: URL) throws { url = compiledModelURL }

    public var functionNames: [String] {
        get async throws {
            await Task.yield()
            return try standIn().functionNames(url)
        }
    }
}

// What a test gives and sees.

public protocol StandInFunction: AnyObject {
    var description: MLModelDescription { get }

    /// All results: in the memory that is offered for them, as that very array, or in other.
    func predict(_ inputs: [String: MLMultiArray], _ backings: [String: MLMultiArray]) throws -> [String: MLMultiArray]
}

public protocol StandInML: AnyObject {
    func compile(_ package: URL) throws -> URL
    func functionNames(_ compiled: URL) throws -> [String]
    func load(_ compiled: URL, _ function: String?, _ computeUnits: MLComputeUnits) throws -> any StandInFunction
}

/// The framework.
nonisolated(unsafe) public var standInML: (any StandInML)?

private func standIn() throws -> any StandInML {
    if let standInML { return standInML }
    throw NSError(domain: "CoreML", code: 1, userInfo: [NSLocalizedDescriptionKey: "a stand-in runs nothing"])
}
