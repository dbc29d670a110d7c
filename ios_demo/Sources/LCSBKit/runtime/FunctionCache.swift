// Which functions of a model stay loaded, where each layer has its own: a step of 24 layers runs some sixty.

/// Bytes that loaded functions may hold on to, by `functionBytes`; a single one may take more.
let loadedBytes = 256 << 20

/// What a loaded function is taken to hold on to: its working set, and its weights as they are stored.
func functionBytes(_ manifest: Manifest, _ program: String) -> Int {
    workingBytes(manifest, program) + manifest.graphs[program]!.initializers.reduce(0) { $0 + tensorBytes($1.dtype, $1.shape) }
}

/// What a runtime allocates for a program's own values, about; 0 where it was not determined.
func workingBytes(_ manifest: Manifest, _ program: String) -> Int { manifest.graphs[program]!.workingBytes ?? 0 }

/// Functions that were loaded, of `capacity` bytes at most and the one at work besides.
///
/// One function has to be loaded at a time. A step goes through the layers' functions in a circle, in which the one that was used longest ago
/// is needed next, so what has to give way is the function whose next use is farthest: as far behind its last as that was behind the one
/// before, and for one that was used only once beyond any other's.
struct FunctionCache<Function> {
    private struct Use {
        var last: Int
        var period: Int?
    }

    private let capacity: Int
    private var loaded: [String: (function: Function, bytes: Int)] = [:]
    private var uses: [String: Use] = [:]  // of those that gave way too
    private var clock = 0

    init(capacity: Int) { self.capacity = capacity }

    var names: Set<String> { Set(loaded.keys) }

    /// The function, which is loaded if it is not.
    mutating func get(_ name: String, bytes: Int, _ load: () throws -> Function) rethrows -> Function {
        clock += 1
        uses[name] = Use(last: clock, period: uses[name].map { clock - $0.last })
        if let found = loaded[name] { return found.function }
        while !loaded.isEmpty && loaded.values.reduce(bytes, { $0 + $1.bytes }) > capacity { loaded[farthest] = nil }
        let function = try load()
        loaded[name] = (function, bytes)
        return function
    }

    private var farthest: String {
        func next(_ name: String) -> Int {
            let use = uses[name]!
            return use.last + (use.period ?? Int.max / 2)
        }
        return loaded.keys.max { (next($0), $0) < (next($1), $1) }!
    }
}
