import Foundation
import LCSBKit

/// A run as the person asked for it, from which it goes on. `data`: a file of the data directory; `dataName`: what the person calls it.
/// `budget`: bytes, nil for what is free. `threads`: the same after every resume, or the last bits would differ. `initial`: it begins with an
/// adapter, a copy of which lies beside it, and which is called `continued`. `chat`: it learns from conversations. `fault`, `arguments`,
/// `detail`: why it failed. `adapter`: what it came to, on the shelf.
struct RunRecord: Codable, Equatable, Sendable {
    /// What is to become of it. `running` while nothing trains: the process was ended. `waiting`: it goes on by itself when the app is seen
    /// again. `night`: when nobody uses the phone.
    enum Wanted: String, Codable { case running, waiting, night, paused, finished, cancelled, failed }

    var bundle: String
    var data: String
    var dataName: String
    var steps: Int
    var budget: Int?
    var threads: Int
    var initial = false
    var continued: String?
    var chat = false
    var wanted = Wanted.running
    var fault: String?
    var arguments: [String] = []
    var detail: String?
    var report: RunReport?
    var adapter: String?

    /// It may go on from what it saved.
    var resumable: Bool {
        switch wanted {
        case .running, .waiting, .night, .paused, .failed: true
        case .finished, .cancelled: false
        }
    }

    /// It goes on without being asked for: nobody paused it.
    var unfinished: Bool { wanted == .running || wanted == .waiting || wanted == .night }
}

/// What a run came to. `json`: as `lcsb simulate --json` names its fields, with the phone and its peak of memory.
public struct RunReport: Codable, Equatable, Sendable {
    public var json: String
    public var steps: Int
    public var seconds: Double
    public var before: Double?
    public var after: Double?
    public var memory: Int
    public var runtime: String
    public var phone: String
}

extension RunReport {
    init(_ result: RunResult, peak: Int, phone: String) throws {
        json = try Self.complete(result.toJson(), ["phone": phone, "peak_process_bytes": peak])
        steps = result.losses.count
        seconds = result.stepSeconds.reduce(0, +)
        (before, after) = (result.evalLossBefore, result.evalLossAfter)
        memory = max(peak, result.peakAnonymousBytes ?? 0)
        runtime = [result.runtime ?? "–", result.runtimeVersion ?? ""].joined(separator: " ").trimmingCharacters(in: .whitespaces)
        self.phone = phone
    }

    private static func complete(_ json: String, _ more: [String: Any]) throws -> String {
        var fields = try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any] ?? [:]
        fields.merge(more) { _, ours in ours }
        let bytes = try JSONSerialization.data(withJSONObject: fields, options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes])
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// The last run of each bundle: `BUNDLE/run.json`, `BUNDLE/initial.safetensors` where it begins with an adapter, and `BUNDLE/state` of
/// LCSBKit's.
struct RunStore: Sendable {
    let directory: URL

    func directory(_ bundle: String) -> URL { directory.appendingPathComponent(bundle) }
    func state(_ bundle: String) -> URL { directory(bundle).appendingPathComponent("state") }
    func initial(_ bundle: String) -> URL { directory(bundle).appendingPathComponent("initial.safetensors") }
    private func file(_ bundle: String) -> URL { directory(bundle).appendingPathComponent("run.json") }

    func read(_ bundle: String) -> RunRecord? { AppModel.read(RunRecord.self, from: file(bundle)) }

    /// Whether something of it is saved that it can go on from.
    func begun(_ bundle: String) -> Bool { listed(state(bundle)).contains { $0.hasPrefix("step-") } }

    func all() -> [RunRecord] { listed(directory).compactMap(read) }

    func write(_ record: RunRecord) throws { try AppModel.write(record, to: file(record.bundle)) }

    /// Begins anew, with a copy of `initial` if there is one. What the bundle's last run saved goes, but not before `record` is written.
    func replace(_ record: RunRecord, initial: URL?) throws {
        let old = directory(record.bundle).appendingPathComponent("old")
        remove(old)
        let (saved, beginning) = (state(record.bundle), self.initial(record.bundle))
        try storing(old) {
            try makeDirectories(old)
            for file in [saved, beginning] where exists(file) { try move(file, to: old.appendingPathComponent(file.lastPathComponent)) }
        }
        do {
            if let initial { try copy(initial, to: beginning) }
            try write(record)
        } catch {
            remove(beginning)
            for file in [saved, beginning] {
                let kept = old.appendingPathComponent(file.lastPathComponent)
                if exists(kept) { try? move(kept, to: file) }
            }
            throw error
        }
        remove(old)
    }

    func remove(_ bundle: String) {
        AppModel.remove(file(bundle))
        AppModel.remove(directory(bundle))
    }

    private func remove(_ file: URL) { AppModel.remove(file) }
}
