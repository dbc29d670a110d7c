import Foundation
import LCSBKit

/// What went wrong and what to do, as sentences in the person's language. `detail`: in English, with every number, for who wants to know.
public struct Problem: Equatable, Sendable {
    /// What the person can do about it at once.
    public enum Action: Sendable { case openSettings, resume }

    /// The catalog's key of what is wrong; that of what to do ends in `_todo`.
    public let key: String
    public let arguments: [String]
    public let detail: String?
    public let fault: Fault?
    public let action: Action?

    static let access = Problem("problem_access")
    static let typedFull = Problem("problem_typed")
    static let promptLong = Problem("problem_prompt")
    static let interrupted = Problem("problem_interrupted", action: .resume)
    static let notifications = Problem("problem_notifications", action: .openSettings)

    private init(_ key: String, _ arguments: [String] = [], detail: String? = nil, fault: Fault? = nil, action: Action? = nil) {
        (self.key, self.arguments, self.detail, self.fault, self.action) = (key, arguments, detail, fault, action)
    }

    init(_ fault: Fault, _ arguments: [String] = [], detail: String? = nil) {
        self.init("fault_" + fault.rawValue.lowercased(), arguments, detail: detail, fault: fault)
    }

    init(_ error: any Error) {
        switch error {
        case let error as LcsbError where error.fault == .option && error.arguments == ["prompt"]:
            self.init(Self.promptLong.key, detail: error.message)
        case let error as LcsbError: self.init(error.fault, error.arguments, detail: error.message)
        case let error as IoError: self.init(error.isFull ? .storageFull : .storageFailed, detail: error.reason)
        case is TypedFull: self = .typedFull
        case let error as AccessLost: self.init(Self.access.key, detail: error.path)
        default: self.init("problem_unexpected", detail: "\(error)")
        }
    }

    /// What is wrong, with its figures where there are any. `arguments` that are numbers count bytes, but for the second of a file and a
    /// line.
    public func what(_ words: any Words) -> String {
        let numbers = arguments.compactMap { Int($0) }
        switch fault {
        case .runtimeNotIncluded where arguments.count == 1: return words("\(key)_name", arguments[0])
        case .systemOlder where arguments.count == 1: return words("\(key)_since", arguments[0])
        case .dataLine where arguments.count > 1 && Int(arguments[1]) != nil: return words("\(key)_number", arguments[1])
        case .memoryTooSmall where numbers.count == arguments.count && numbers.count >= 2,
            .storageFull where numbers.count == arguments.count && numbers.count == 2:
            return words("\(key)_sizes", words.bytes(numbers[0]), words.bytes(numbers[1]))
        default: return words(key)
        }
    }

    /// What to do.
    public func todo(_ words: any Words) -> String { words("\(key)_todo") }

    var actionTitle: String? {
        switch action {
        case .openSettings: "open_settings"
        case .resume: "resume"
        case nil: nil
        }
    }
}
