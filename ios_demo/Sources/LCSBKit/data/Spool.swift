import Foundation

/// Numbers that grow in a temporary file and are then mapped, so that their length costs no memory of the process' own. The file has no
/// name once it is open, and goes with its last mapping. It is written through the file, not the mapping: writing to a mapped file on a
/// full disk would end the process.
///
/// Throws STORAGE_FULL or STORAGE_FAILED.
final class Spool<Element: FixedWidthInteger & BitwiseCopyable> {
    private let directory: URL
    private let file: OpenFile
    private var pending: [Element] = []
    private var written = 0  // bytes

    init(_ directory: URL) throws {
        self.directory = directory
        let place = directory.appendingPathComponent(".spool.\(UUID().uuidString)")
        file = try storing(directory) {
            let file = try OpenFile(place, O_RDWR | O_CREAT | O_EXCL)
            if unlink(place.path) != 0 { throw IoError(errno) }
            return file
        }
        pending.reserveCapacity(spoolElements)
    }

    func append(_ value: Element) throws {
        if pending.count == spoolElements { try flush() }
        pending.append(value)
    }

    /// All that was appended. Nothing can be appended after it.
    func mapped(writable: Bool = false) throws -> Mapped<Element> {
        try flush()
        return Mapped(try storing(directory) { try Bytes(mapping: file.descriptor, offset: 0, count: written, writable: writable) })
    }

    private func flush() throws {
        try storing(directory) { try pending.withUnsafeBytes(file.write) }
        written += pending.count * MemoryLayout<Element>.size
        pending.removeAll(keepingCapacity: true)
    }
}

private let spoolElements = 1 << 13  // that are held before they are written

/// Whole numbers in a mapped file. Copies share it.
struct Mapped<Element: FixedWidthInteger & BitwiseCopyable> {
    let count: Int
    private let bytes: Bytes

    fileprivate init(_ bytes: Bytes) { (self.bytes, count) = (bytes, bytes.count / MemoryLayout<Element>.size) }

    private var pointer: UnsafeMutablePointer<Element> { bytes.pointer.assumingMemoryBound(to: Element.self) }

    /// Of a file that was mapped to be read alone nothing may be set.
    subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count)
            return pointer[index]
        }
        nonmutating set {
            precondition(index >= 0 && index < count)
            pointer[index] = newValue
        }
    }

    /// Sorts all in place: the standard library would take memory for half of them.
    func sort() { sort(0..<count) }

    /// Quicksort, the longer side left for the loop, so that the stack stays short.
    func sort(_ range: Range<Int>) {
        var (low, high) = (range.lowerBound, range.upperBound - 1)
        precondition(low >= 0 && high < count)
        while low < high {
            let middle = partition(low, high)
            if middle - low < high - middle {
                sort(low..<middle + 1)
                low = middle + 1
            } else {
                sort(middle + 1..<high + 1)
                high = middle
            }
        }
    }

    /// Hoare's: afterwards none in `low...result` is greater than any in `result + 1...high`; both have one at least.
    private func partition(_ low: Int, _ high: Int) -> Int {
        let values = pointer
        let pivot = values[low + (high - low) / 2]
        var (left, right) = (low - 1, high + 1)
        while true {
            repeat { left += 1 } while values[left] < pivot
            repeat { right -= 1 } while values[right] > pivot
            if left >= right { return right }
            (values[left], values[right]) = (values[right], values[left])
        }
    }
}
