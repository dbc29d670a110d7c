import Foundation

/// A value that is reached under a lock.
package final class Locked<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    package init(_ value: Value) { self.value = value }

    package func with<Result>(_ use: (inout Value) throws -> Result) rethrows -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try use(&value)
    }
}

/// A value that is made when it is first asked for, once, by whichever thread.
final class Once<Value>: @unchecked Sendable {
    private let made = Locked<Value?>(nil)

    func get(_ make: () throws -> Value) throws -> Value {
        try made.with { made in
            if let made { return made }
            let value = try make()
            made = value
            return value
        }
    }
}

/// Buffers that are made once and lent again and again: of each size, whatever says it, as many as were wanted at once.
final class Pool<Size: Hashable, Buffer> {
    private let make: (Size) throws -> Buffer
    private var made: [Size: [Buffer]] = [:]

    init(_ make: @escaping (Size) throws -> Buffer) { self.make = make }

    /// One for each of `sizes`; those of the last call are free again.
    func lend(_ sizes: [Size]) throws -> [Buffer] {
        var lent: [Size: Int] = [:]
        return try sizes.map { size in
            let number = lent[size, default: 0]
            lent[size] = number + 1
            if number == made[size, default: []].count { made[size, default: []].append(try make(size)) }
            return made[size]![number]
        }
    }
}
