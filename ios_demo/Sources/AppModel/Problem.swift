import Foundation
import LCSBKit

/// What went wrong and what to do, as sentences in the person's language. `detail`: in English, with every number, for who wants to know.
public struct Problem: Equatable, Sendable {
    /// What the person can do about it at once.
    public enum Action: Sendable { case openSettings, resume, chooseAgain }

    public let key: String
    public let arguments: [String]
    public let detail: String?
    public let fault: Fault?

    /// What is wrong.
    public func what(_ words: any Words) -> String { fatalError("in the making") }

    /// What to do.
    public func todo(_ words: any Words) -> String { fatalError("in the making") }
}
