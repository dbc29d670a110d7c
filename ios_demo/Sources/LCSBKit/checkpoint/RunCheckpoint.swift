import Foundation

// A run's state in one file, from which it goes on bit for bit. Specification: docs/run_checkpoint.md. The file is safetensors; its
// metadata carries a SHA-256 of the whole file, header included, in which the digest's own 64 characters count as zeros.

/// `updates`: AdamW's count of each layer. `steps` float64 [step, stepColumns] and `evaluations` float64 [e, 2], (step, loss): the run's
/// history. The state of one that was read is a view of the mapped file, which may not be written to.
public struct RunCheckpoint: Sendable {
    public let place: RunPlace
    public let state: AdapterState
    public let updates: [Int64]
    public let steps: [Double]
    public let evaluations: [Double]
}

public let stepColumns = 6  // loss, learning rate, gradient norm, gradient seconds, optimizer seconds, anonymous bytes

private let format = "lcsb_mobile.checkpoint"
private let version = "3"
private let mostHeaderBytes = 4 << 20
private let mostHistoryBytes = 48 << 20  // of a million steps: it is held in memory
private let mostNodes = 1 << 18  // of the header, or of the run in it: a schedule's layers are nearly all of them
private let namePrefix = Array("step-".utf8)
private let nameSuffix = Array(".safetensors".utf8)

/// The name of the checkpoint after `step`.
func checkpointName(_ step: Int) -> String { "step-\(padded("\(step)", 8)).safetensors" }

/// The number in a checkpoint's name, of 8 to 18 digits.
private func checkpointNumber(_ name: String) -> Int? {
    let bytes = Array(name.utf8)
    guard bytes.starts(with: namePrefix), bytes.reversed().starts(with: nameSuffix.reversed()) else { return nil }
    let digits = bytes.dropFirst(namePrefix.count).dropLast(nameSuffix.count)
    guard (8...18).contains(digits.count), digits.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains) else { return nil }
    return Int(String(decoding: digits, as: UTF8.self))
}

/// The checkpoints in a directory, the newest first. Throws CHECKPOINT_DAMAGED when it cannot be read.
public func checkpointFiles(_ directory: URL) throws -> [URL] {
    guard let names = try? FileManager.default.contentsOfDirectory(atPath: directory.path) else {
        throw damaged("\(directory.path): cannot be read", directory)
    }
    let found = names.compactMap { name in checkpointNumber(name).map { (number: $0, file: directory.appendingPathComponent(name)) } }
    return found.filter { isFile($0.file) }.sorted { $0.number > $1.number }.map(\.file)
}

/// Whole or not at all, and synced. Throws STORAGE_FULL or STORAGE_FAILED.
func writeCheckpoint(_ file: URL, _ checkpoint: RunCheckpoint) throws {
    let state = checkpoint.state
    let tensors: [(name: String, tensor: WrittenTensor)] = [
        ("adapter", WrittenTensor([state.size], state.adapter)),
        ("first_moment", WrittenTensor([state.size], state.firstMoment)),
        ("second_moment", WrittenTensor([state.size], state.secondMoment)),
        ("updates", WrittenTensor([checkpoint.updates.count], checkpoint.updates)),
        ("steps", WrittenTensor([checkpoint.place.step, stepColumns], checkpoint.steps)),
        ("evaluations", WrittenTensor([checkpoint.evaluations.count / 2, 2], checkpoint.evaluations)),
    ]
    let metadata: [(key: String, value: String)] = [
        ("format", format), ("version", version), ("sha256", String(decoding: unknownDigest, as: UTF8.self)),
        ("run", checkpoint.place.json),
    ]
    try replaceAtomically(file) { try writeDigested(tensors, metadata, to: $0) }
}

/// Checked before anything of it is used: digest, format, names, shapes, values. `layers` and `size`, of all: of the bundle's adapter.
/// Throws CHECKPOINT_DAMAGED with what is wrong.
func readCheckpoint(_ file: URL, _ layers: Int, _ size: Int) throws -> RunCheckpoint {
    do {
        let (opened, fileSize) = try openRegular(file)
        let (header, metadata, start) = try readHeader(file, opened, fileSize)
        let data = fileSize - start
        if data == 0 { throw damaged("\(file.path): holds no tensors", file) }
        let place = try decodePlace(file, metadata)
        try checkEntries(file, header, layers, size, place.step, data)
        if start % 8 != 0 { throw damaged("\(file.path): malformed: a header of \(start - 8) bytes, expected a multiple of 8", file) }
        let tensors = try Bytes(mapping: opened.descriptor, offset: start, count: data)
        let checkpoint = readTensors(tensors, place, layers, size)
        try checkValues(file, checkpoint)
        return checkpoint
    } catch let error as IoError {
        throw damaged("\(file.path): cannot be read: \(oneLine(error.reason))", file)
    }
}

/// The first of `files` that can be read, and what is wrong with those before it. Throws CHECKPOINT_DAMAGED when none can.
public func newestGood(_ files: [URL], _ layers: Int, _ size: Int) throws -> (file: URL, checkpoint: RunCheckpoint, faults: [String]) {
    var faults: [String] = []
    for file in files {
        do {
            return (file, try readCheckpoint(file, layers, size), faults)
        } catch let error as LcsbError {
            faults.append(error.message)
        }
    }
    let message = "\(faults.joined(separator: "; ")); no good checkpoint is left"
    throw LcsbError(.checkpointDamaged, message, files.map(\.lastPathComponent))
}

private struct Entry: Equatable {
    let dtype: String
    let shape: [Int]
    let dataOffsets: [Int]

    init(_ dtype: String, _ shape: [Int], _ dataOffsets: [Int]) { (self.dtype, self.shape, self.dataOffsets) = (dtype, shape, dataOffsets) }

    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        self.init(try fields.string("dtype"), try fields.ints("shape"), try fields.ints("data_offsets"))
        try fields.finish()
    }

    var short: String { oneLine("\(dtype) \(shape) at bytes \(dataOffsets)", 120) }
}

private struct Metadata {
    let format: String
    let version: String
    let sha256: String
    let run: String

    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        (format, version) = (try fields.string("format"), try fields.string("version"))
        (sha256, run) = (try fields.string("sha256"), try fields.string("run"))
        try fields.finish()
    }
}

private let tensorNames = ["adapter", "first_moment", "second_moment", "updates", "steps", "evaluations"]

/// The tensors that the header names, the metadata, and where the data starts, once the digest was found right.
private func readHeader(
    _ file: URL, _ opened: OpenFile, _ fileSize: Int
) throws -> (header: [String: Entry], metadata: Metadata, start: Int) {
    var start = [UInt8](repeating: 0, count: 8)
    if fileSize >= 8 { try start.withUnsafeMutableBytes { try opened.read(at: 0, into: $0) } }
    let size = UInt64(littleEndian: start.withUnsafeBytes { $0.load(as: UInt64.self) })
    if size < 2 || size > UInt64(min(mostHeaderBytes, fileSize - 8)) {
        throw damaged("\(file.path): not a checkpoint: its header is said to have \(size) bytes", file)
    }
    var text = [UInt8](repeating: 0, count: Int(size))
    try text.withUnsafeMutableBytes { try opened.read(at: 8, into: $0) }
    let unread = "not a checkpoint, or a damaged one"
    let (header, stated) = try decode(file, unread, text) { value in
        var fields = try Fields(value, "its header")
        var header: [String: Entry] = [:]
        for name in tensorNames { header[name] = try fields.optional(name).map { try Entry($0, name) } }
        let metadata = try fields.optional("__metadata__").map { try Metadata($0, "its metadata") }
        try fields.finish()
        return (header, metadata)
    }
    guard let metadata = stated else { throw damaged("\(file.path): \(unread): it has no metadata", file) }
    if metadata.format != format || metadata.version != version {
        let found = "\(quoted(metadata.format, 40)) version \(quoted(metadata.version, 10))"
        let remedy = "end the run with the app that began it, or begin another in another directory"
        throw damaged("\(file.path): expected \(format) version \(version), found \(found); \(remedy)", file)
    }
    let found = try fileDigest(opened, fileSize, start + text, metadata.sha256)
    if found != metadata.sha256 {
        throw damaged("\(file.path): damaged: expected SHA-256 \(oneLine(metadata.sha256, 12)), found \(oneLine(found, 12))", file)
    }
    return (header, metadata, 8 + text.count)
}

private func decodePlace(_ file: URL, _ metadata: Metadata) throws -> RunPlace {
    let place = try decode(file, "malformed", Array(metadata.run.utf8)) { try RunPlace($0, "run") }
    let train = place.identity.train
    do {
        try train.check()
    } catch let error as LcsbError {
        throw damaged("\(file.path): malformed: \(error.message)", file)
    }
    if LocalTime(place.identity.date) == nil {
        let found = quoted(place.identity.date, 40)
        throw damaged("\(file.path): malformed: date: expected one as 2026-02-28T23:05:09, found \(found)", file)
    }
    let (expected, overflow) = place.step.multipliedReportingOverflow(by: train.accumulation)
    if !(0...Int(Int32.max)).contains(place.step) || overflow || place.sequences != expected {
        throw damaged("\(file.path): malformed: step \(place.step) after \(place.sequences) sequences, expected \(expected)", file)
    }
    return place
}

private func decode<Value>(_ file: URL, _ what: String, _ text: [UInt8], _ read: (Json) throws -> Value) throws -> Value {
    do {
        let reader = try JsonReader(text)
        let tree = try reader.tree(nodes: mostNodes, unique: true)
        try reader.finish()
        return try read(tree)
    } catch let error as JsonError {
        throw damaged("\(file.path): \(what): \(oneLine(error.reason))", file)
    } catch let error as RecordError {
        throw damaged("\(file.path): \(what): \(oneLine(error.reason))", file)
    }
}

/// The tensors lie one after the other in this order and fill the file: `data` bytes. There are as many evaluations as that makes.
private func checkEntries(_ file: URL, _ header: [String: Entry], _ layers: Int, _ size: Int, _ step: Int, _ data: Int) throws {
    let before = 3 * 4 * size + 8 * layers + 8 * step * stepColumns
    let evaluations = max(0, data - before) / 16
    let shapes = [[size], [size], [size], [layers], [step, stepColumns], [evaluations, 2]]
    var faults = tensorNames.filter { header[$0] == nil }.map { "\($0) is missing" }
    if data - 12 * size > mostHistoryBytes { faults.append("expected at most \(mostHistoryBytes) bytes of history") }
    var end = 0
    for (name, (dtype, shape)) in zip(tensorNames, zip(["F32", "F32", "F32", "I64", "F64", "F64"], shapes)) where faults.isEmpty {
        let start = end
        end += shape.reduce(dtype == "F32" ? 4 : 8, *)
        let found = header[name]!
        if found != Entry(dtype, shape, [start, end]) {
            faults.append("\(name): expected \(dtype) \(shape) at byte \(start), found \(found.short)")
        }
    }
    if faults.isEmpty && end != data { faults.append("expected \(end) bytes of tensors, found \(data)") }
    if !faults.isEmpty { throw damaged("\(file.path): does not fit the bundle's adapter: \(faults.joined(separator: "; "))", file) }
}

private func readTensors(_ tensors: Bytes, _ place: RunPlace, _ layers: Int, _ size: Int) -> RunCheckpoint {
    let state = (0..<3).map { tensors.part($0 * 4 * size, 4 * size).floats }
    var at = 3 * 4 * size
    // They need not be aligned.
    func history<Element: BitwiseCopyable>(_ count: Int, _: Element.Type = Element.self) -> [Element] {
        defer { at += count * MemoryLayout<Element>.size }
        return (0..<count).map { tensors.raw.loadUnaligned(fromByteOffset: at + $0 * MemoryLayout<Element>.size, as: Element.self) }
    }
    return RunCheckpoint(
        place: place, state: AdapterState(adapter: state[0], firstMoment: state[1], secondMoment: state[2]),
        updates: history(layers), steps: history(place.step * stepColumns), evaluations: history((tensors.count - at) / 8)
    )
}

private func checkValues(_ file: URL, _ checkpoint: RunCheckpoint) throws {
    let state = checkpoint.state
    let floats = [("adapter", state.adapter), ("first_moment", state.firstMoment), ("second_moment", state.secondMoment)]
    let doubles = [("steps", checkpoint.steps), ("evaluations", checkpoint.evaluations)]
    let infinite = floats.filter { !all($0.1, \.isFinite) }.map(\.0) + doubles.filter { !$0.1.allSatisfy(\.isFinite) }.map(\.0)
    var faults = infinite.map { "\($0) holds NaN or infinite values" }
    if !all(state.secondMoment, { !($0 < 0) }) { faults.append("second_moment holds negative values") }
    if checkpoint.updates.contains(where: { $0 < 0 }) { faults.append("updates holds negative values") }
    if !faults.isEmpty { throw damaged("\(file.path): \(faults.joined(separator: "; "))", file) }
}

private func all(_ values: Floats, _ holds: (Float) -> Bool) -> Bool {
    withExtendedLifetime(values) { UnsafeBufferPointer(start: values.pointer, count: values.count).allSatisfy(holds) }
}

private func damaged(_ message: String, _ file: URL) -> LcsbError { LcsbError(.checkpointDamaged, message, [file.lastPathComponent]) }
