import Foundation

/// A bundle that the app has. `name`: its own. `place`: the directory it lies in. `source`: what it was exported from. `adapterSize`:
/// parameters of all layers. `schedule`: one cycle, by step. `predictedMemory`: anonymous bytes of a step that keeps nothing.
/// `secondsAStep`: predicted from one step that was timed on this phone, later measured. `checked`: the golden trace came out right on
/// this phone. `verdict`: what it said when it was last computed here. `chats`: it says how a conversation is written.
public struct BundleInfo: Codable, Equatable, Sendable, Identifiable {
    /// In the app's own storage, or where `lcsb ios push` put it, below the app's documents, or in the app itself.
    public enum Place: String, Codable, Sendable { case library, documents, app }

    public var name: String
    public var place: Place
    /// Of its directory, below the place's.
    public var directory: String
    public var source: String
    public var bytes: Int
    public var layers: Int
    public var adapterSize: Int
    public var seqLen: Int
    public var schedule: [[LayerRole]]
    public var digest: String
    public var chats = false
    public var predictedMemory: Int?
    public var secondsAStep: Double?
    public var checked = false
    public var verdict: Verdict?

    public var id: String { name }
}

/// What the golden trace says of a runtime on this phone. `holds`: it computes rightly, and may be used.
public struct Verdict: Codable, Equatable, Sendable {
    public var runtime: String
    public var version: String
    public var holds: Bool

    public init(runtime: String, version: String, holds: Bool) { (self.runtime, self.version, self.holds) = (runtime, version, holds) }
}

/// A bundle that lies in the app's documents and is not listed yet.
public struct FoundBundle: Equatable, Sendable, Identifiable {
    public let directory: String
    public var id: String { directory }
    public var name: String { directory.split(separator: "/").last.map(String.init) ?? directory }
}

/// Something that takes long: `done` of `total` (0: unknown), both in bytes.
public struct Transfer: Equatable, Sendable {
    public enum Kind: Sendable { case copying, verifying, testing, reading }

    public var kind: Kind
    public var name: String
    public var done = 0
    public var total = 0

    public init(_ kind: Kind, _ name: String, done: Int = 0, total: Int = 0) {
        (self.kind, self.name, self.done, self.total) = (kind, name, done, total)
    }

    /// 0 to 1, or nil where it is not known.
    public var fraction: Double? { total > 0 ? min(1, Double(done) / Double(total)) : nil }
}

/// The data to train on. `typed`: the person's own messages, where they typed them. `summary`: under the chosen bundle, nil until it was
/// read.
public struct DataInfo: Equatable, Sendable {
    public var file: String
    public var name: String
    public var typed: [String]?
    public var summary: DataSummary?

    /// Whether it can be trained on, as far as it was read: one example at least is held out.
    public var suffices: Bool { summary.map { $0.examples >= 2 } ?? true }
}

/// What the data comes to. `counted`: tokens that are learned. `cut`: examples longer than a sequence. `sequences`: of an epoch.
/// `previews`: the first examples.
public struct DataSummary: Codable, Equatable, Sendable {
    public var examples: Int
    public var tokens: Int
    public var counted: Int
    public var cut: Int
    public var dropped: Int
    public var sequences: Int
    public var conversations: Int
    public var previews: [[TextPiece]]
}

/// Neighbouring tokens that all count for the loss, or none of them, as text.
public struct TextPiece: Codable, Equatable, Sendable {
    public var text: String
    public var counted: Bool
}

/// `scheduled`: it begins or goes on by itself at night. `interrupted`: the system ended the app.
public enum RunPhase: String, Sendable, CaseIterable {
    case none, scheduled, opening, testing, evaluating, training, pausing, paused, waiting, interrupted, finished, cancelled, failed
}

/// The run of the chosen bundle. `roles`: of the step under way. `layer`: the one at work, -1 for none. `secondsAStep`: of the last steps.
/// `begun`: something of it is saved. `chat`: it learns from conversations.
public struct RunState: Equatable, Sendable {
    public var phase = RunPhase.none
    public var step = 0
    public var steps = 0
    public var training: [LossPoint] = []
    public var evaluation: [LossPoint] = []
    public var roles: [LayerRole] = []
    public var layer = -1
    public var secondsAStep: Double?
    public var decision = Decision()
    public var begun = true
    public var chat = false

    init(phase: RunPhase = .none, steps: Int = 0) { (self.phase, self.steps) = (phase, steps) }

    public var active: Bool {
        switch phase {
        case .opening, .testing, .evaluating, .training, .pausing, .waiting: true
        default: false
        }
    }

    public var resumable: Bool {
        phase == .paused || phase == .interrupted || phase == .scheduled || (phase == .failed && begun)
    }
}

/// One point of a curve: the loss at a step.
public struct LossPoint: Codable, Equatable, Sendable, Identifiable {
    public var step: Int
    public var loss: Double
    public var id: Int { step }

    public init(_ step: Int, _ loss: Double) { (self.step, self.loss) = (step, loss) }
}

/// What a step does with a layer.
public enum LayerRole: String, Codable, Sendable { case trained, passed, skipped }

/// What a model has learned, in the app's storage. `bundle`, `digest`: of the bundle that it belongs to. `data`: as the person calls it.
/// `before`, `after`: the loss on held-out examples. `continued`: the name of the adapter that it began with.
public struct AdapterInfo: Codable, Equatable, Sendable, Identifiable {
    public enum Origin: String, Codable, Sendable { case trained, imported }

    public var id: String
    public var name: String
    public var bundle: String
    public var digest: String
    public var date: Date
    public var origin: Origin
    public var data: String?
    public var steps: Int?
    public var before: Double?
    public var after: Double?
    public var continued: String?
    /// It learned from conversations.
    public var chat = false
    public var bytes: Int
}

/// Whose words: the model's as it came, what the run under way has learned so far, or an adapter of the shelf.
public enum Voice: Hashable, Sendable { case base, run, adapter(String) }

/// A message of a conversation. `voice`: who answered; nil: the person asks. `complete`: nothing more is written to it.
public struct ChatMessage: Equatable, Sendable, Identifiable {
    public let id: Int
    public var voice: Voice?
    public var text: String
    public var complete = true
    /// It ended for want of room, and says so with an ellipsis.
    public var cut = false
    public var mine: Bool { voice == nil }
}

/// The same prompt, continued or answered by two.
public struct Comparison: Equatable, Sendable {
    public var prompt: String?
    public var left = ""
    public var right = ""
    public var writing = false
}
