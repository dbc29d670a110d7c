import COrt
import Foundation

// ONNX Runtime's C API as far as it is used here: its table of functions, called as it stands, and what it makes, given back with its last
// user.

/// What ONNX Runtime refused, in its words.
struct OrtFailure: Error {
    let text: String
}

/// The runtime, one a process: its functions, its environment, and the arena that all sessions share.
final class Ort: @unchecked Sendable {
    let api: OrtApi
    let environment: OpaquePointer
    let memory: OpaquePointer  // says where the host's own is
    let version: String
    private let hasArena = Locked(false)

    private static let only = Once<Ort>()

    /// Throws RUNTIME_MISSING.
    static func get() throws -> Ort { try only.get { try Ort(apiVersion: UInt32(ORT_API_VERSION)) } }

    /// With the functions of that version. Throws RUNTIME_MISSING where the library has none.
    init(apiVersion: UInt32) throws {
        let base = OrtGetApiBase()!.pointee
        version = String(cString: base.GetVersionString()!)
        guard let functions = base.GetApi(apiVersion) else {
            let message = "ONNX Runtime \(version) has no version \(apiVersion) of its C API; build the app with the library of its headers"
            throw LcsbError(.runtimeMissing, message, [version])
        }
        let api = functions.pointee
        self.api = api
        // Official builds from 1.29 on report processes, sessions and models to Microsoft, unless this is set. Whoever has set it has decided.
        setenv("ORT_DISABLE_TELEMETRY", "1", 0)
        do {
            environment = try api.made { api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "lcsb", $0) }
            memory = try api.made { api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, $0) }
        } catch let failure as OrtFailure {
            let message = "ONNX Runtime \(version) cannot be started: \(oneLine(failure.text)); build the app with another library"
            throw LcsbError(.runtimeMissing, message, [version])
        }
    }

    /// One memory arena for all sessions of the process; each with its own holds on to what the others could use (docs/decisions.md).
    ///
    /// ONNX Runtime takes one a process: it is as large as the first bundle says. Throws MEMORY_TOO_SMALL.
    func shareArena(_ initialBytes: Int) throws {
        try hasArena.with { hasArena in
            if hasArena { return }
            do {
                let size = Int32(min(initialBytes, Int(Int32.max)))  // what its configuration of an arena can hold
                let configuration = try api.made { api.CreateArenaCfg(0, -1, size, -1, $0) }
                defer { api.ReleaseArenaCfg(configuration) }
                try api.check(api.CreateAndRegisterAllocator(environment, memory, configuration))
            } catch let failure as OrtFailure {
                let message = "onnxruntime cannot reserve its arena of \(initialBytes) bytes: \(oneLine(failure.text))"
                throw LcsbError(.memoryTooSmall, message, ["\(initialBytes)"])
            }
            hasArena = true
        }
    }
}

extension OrtApi {
    /// Throws OrtFailure for what a call returned, unless it is nothing.
    func check(_ status: OrtStatusPtr?) throws {
        guard let status else { return }
        defer { ReleaseStatus(status) }
        throw OrtFailure(text: String(cString: GetErrorMessage(status)!))
    }

    /// What `call` makes. Throws OrtFailure.
    func made(_ call: (UnsafeMutablePointer<OpaquePointer?>) -> OrtStatusPtr?) throws -> OpaquePointer {
        try got(nil as OpaquePointer?, call)!
    }

    /// What `call` writes in place of `initial`. Throws OrtFailure.
    func got<Value>(_ initial: Value, _ call: (UnsafeMutablePointer<Value>) -> OrtStatusPtr?) throws -> Value {
        var value = initial
        try check(call(&value))
        return value
    }
}

/// The runtime's tensor over a host's own, which must live as long.
final class OrtTensor {
    let pointer: OpaquePointer
    private let ort: Ort

    static let types = [
        "float32": ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "float16": ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        "int64": ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, "uint8": ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        "int8": ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, "bool": ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
    ]

    init(_ ort: Ort, _ x: HostTensor) throws {
        let shape = x.shape.map(Int64.init)
        pointer = try ort.api.made { made in
            ort.api.CreateTensorWithDataAsOrtValue(
                ort.memory, x.bytes.pointer, x.bytes.count, shape, shape.count, Self.types[x.dtype]!, made)
        }
        self.ort = ort
    }

    deinit { ort.api.ReleaseValue(pointer) }
}

/// A loaded program. Its names are the runtime's strings for as long as it lives.
final class OrtSession {
    private let ort: Ort
    private let pointer: OpaquePointer

    /// `options` are given back. Throws OrtFailure.
    init(_ ort: Ort, _ file: URL, _ options: OpaquePointer) throws {
        self.ort = ort
        pointer = try ort.api.made { ort.api.CreateSession(ort.environment, file.path, options, $0) }
    }

    deinit { ort.api.ReleaseSession(pointer) }

    /// Computes the `outputs`, in place. Throws OrtFailure.
    func run(_ inputs: [(name: OrtName, tensor: OrtTensor)], _ outputs: [(name: OrtName, tensor: OrtTensor)]) throws {
        let (fed, wanted) = (inputs.map { Optional($0.tensor.pointer) }, outputs.map { Optional($0.name.pointer) })
        var results = outputs.map { Optional($0.tensor.pointer) }
        let names = inputs.map { Optional($0.name.pointer) }
        try ort.api.check(ort.api.Run(pointer, nil, names, fed, fed.count, wanted, wanted.count, &results))
    }

    // What it takes and returns. Throws OrtFailure.

    func inputs() throws -> Tensors {
        let api = ort.api
        return try tensors(api.got(0) { api.SessionGetInputCount(pointer, $0) }, api.SessionGetInputName, api.SessionGetInputTypeInfo)
    }

    func outputs() throws -> Tensors {
        let api = ort.api
        return try tensors(api.got(0) { api.SessionGetOutputCount(pointer, $0) }, api.SessionGetOutputName, api.SessionGetOutputTypeInfo)
    }

    private typealias Allocator = UnsafeMutablePointer<OrtAllocator>
    private typealias Text = UnsafeMutablePointer<CChar>

    private func tensors(
        _ count: Int, _ name: (OpaquePointer?, Int, Allocator?, UnsafeMutablePointer<Text?>?) -> OrtStatusPtr?,
        _ type: (OpaquePointer?, Int, UnsafeMutablePointer<OpaquePointer?>?) -> OrtStatusPtr?
    ) throws -> Tensors {
        let api = ort.api
        let allocator = try api.got(nil as Allocator?) { api.GetAllocatorWithDefaultOptions($0) }
        var found: Tensors = [:]
        for index in 0..<count {
            let text = try api.got(nil as Text?) { name(pointer, index, allocator, $0) }!
            defer { allocator!.pointee.Free(allocator, text) }
            let info = try api.made { type(pointer, index, $0) }
            defer { api.ReleaseTypeInfo(info) }
            found[String(cString: text)] = try signature(info)
        }
        return found
    }

    private func signature(_ info: OpaquePointer) throws -> TensorType {
        let api = ort.api
        guard let tensor = try api.got(nil as OpaquePointer?, { api.CastTypeInfoToTensorInfo(info, $0) }) else {
            return TensorType("no tensor", [])
        }
        let type = try api.got(ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED) { api.GetTensorElementType(tensor, $0) }
        var shape = [Int64](repeating: 0, count: try api.got(0) { api.GetDimensionsCount(tensor, $0) })
        try api.check(api.GetDimensions(tensor, &shape, shape.count))
        let dtype = OrtTensor.types.first { $0.value == type }?.key ?? "type \(type.rawValue)"
        return TensorType(dtype, shape.map { $0 < 0 ? anySize : Int($0) })
    }
}

/// A name as the runtime takes it.
final class OrtName {
    let pointer: UnsafePointer<CChar>

    init(_ name: String) { pointer = UnsafePointer(strdup(name)) }

    deinit { free(UnsafeMutablePointer(mutating: pointer)) }
}
