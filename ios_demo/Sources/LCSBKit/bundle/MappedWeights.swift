import Foundation

private let readBeyond = 16  // bytes after an input that XNNPACK may read (its XNN_EXTRA_BYTES): they have to be there

/// `weights.bin`, mapped once and whole: what is read costs no anonymous memory, and every tensor is a part of the one mapping.
final class MappedWeights: Sendable {
    private let tensors: [String: WeightTensor]
    private let stacks: [String: [WeightTensor]]  // by kind of layers
    let whole: Bytes
    private let copies: [String: Bytes]

    /// Throws BUNDLE_UNREADABLE where the file cannot be mapped or ends before its tensors do.
    init(_ file: URL, _ table: [WeightTensor]) throws {
        tensors = Dictionary(table.map { ($0.name, $0) }) { _, last in last }
        stacks = Dictionary(grouping: table.filter(\.perLayer)) { $0.kind ?? "" }
        do {
            whole = try mapWhole(file, Int.max)
        } catch let error as IoError {
            throw unreadable("\(file.path): cannot be mapped: \(oneLine(error.reason))")
        }
        let size = whole.count
        if let last = table.max(by: { $0.offset + $0.nbytes < $1.offset + $1.nbytes }), last.offset + last.nbytes > size {
            throw unreadable("\(file.path): cannot be mapped: it ends at \(size), \(quoted(last.name)) at \(last.offset + last.nbytes)")
        }
        copies = try Self.copies(whole, table)
    }

    /// Of what ends so near to the end of the mapping's last page that nothing may be read beyond it: a norm's weights, where there are
    /// any.
    private static func copies(_ whole: Bytes, _ table: [WeightTensor]) throws -> [String: Bytes] {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let end = (whole.count + page - 1) / page * page
        var copies: [String: Bytes] = [:]
        for tensor in table where tensor.offset + tensor.nbytes > end - readBeyond {
            let copy = try Bytes(count: tensor.nbytes)
            memcpy(copy.pointer, whole.pointer + tensor.offset, tensor.nbytes)
            copies[tensor.name] = copy
        }
        return copies
    }

    /// A tensor's bytes in place, of `layers.…` those of the layer that is `number` of its kind; little-endian, as every machine is that
    /// this runs on. Nobody may write to them.
    func bytes(_ name: String, _ number: Int) -> Bytes {
        let tensor = tensors[name]!
        let bytes = copies[name] ?? whole.part(tensor.offset, tensor.nbytes)
        if !tensor.perLayer { return bytes }
        let size = tensor.nbytes / tensor.shape[0]
        return bytes.part(number * size, size)
    }

    /// `count` rows of a tensor that is not stacked, from row `start` on, in place.
    func rows(_ name: String, _ start: Int, _ count: Int) -> Bytes {
        let size = tensors[name]!.nbytes / tensors[name]!.shape[0]
        return bytes(name, 0).part(start * size, count * size)
    }

    /// Shape of what `bytes` gives.
    func shape(_ name: String) -> [Int] {
        let tensor = tensors[name]!
        return tensor.perLayer ? Array(tensor.shape.dropFirst()) : tensor.shape
    }

    func dtype(_ name: String) -> String { tensors[name]!.dtype }

    func isPerLayer(_ name: String) -> Bool { tensors[name]!.perLayer }

    /// Asks the system to read what the layer that is `number` of its kind has, while something else runs.
    func readAhead(_ kind: String, _ number: Int) {
        for tensor in stacks[kind] ?? [] { bytes(tensor.name, number).willNeed() }
    }
}
