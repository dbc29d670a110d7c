import Foundation
import Observation

/// What the Try it screen shows and can do: a conversation, and the same prompt written by two.
@MainActor @Observable public final class TryScreenModel {
    public var sentence: String { fatalError("in the making") }
    public var canWrite: Bool { fatalError("in the making") }
    public var writing: Bool { fatalError("in the making") }
    /// Ends what is being written; what there is stays.
    public func stop() { fatalError("in the making") }

    // A conversation. A bundle without a chat form continues each message instead.
    public var messages: [ChatMessage] { fatalError("in the making") }
    public var draft = ""
    public var canSend: Bool { fatalError("in the making") }
    public var chats: Bool { fatalError("in the making") }
    public func send() { fatalError("in the making") }
    public func clear() { fatalError("in the making") }

    /// Whether answers are written with what was learned.
    public var adapterOn = true
    public var canSwitch: Bool { fatalError("in the making") }
    /// Whose words: those with an adapter; `base` is what the switch is for.
    public var voices: [Choice<Voice>] { fatalError("in the making") }
    /// What the switch switches on.
    public var voice: Voice {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
    /// "As it came", the adapter's name.
    public func title(of voice: Voice) -> String { fatalError("in the making") }

    public var system: String {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
    /// 0 to 2.
    public var temperature: Double {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
    public var temperatureLabel: String { fatalError("in the making") }

    // The same prompt, continued by two.
    public var comparison: Comparison { fatalError("in the making") }
    public var prompt = ""
    public var canCompare: Bool { fatalError("in the making") }
    public var sides: [Choice<Voice>] { fatalError("in the making") }
    public var left: Voice {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
    public var right: Voice {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
    public func compare() { fatalError("in the making") }
}
