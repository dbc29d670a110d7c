import Foundation
import Observation

/// The app's sections, in their order.
public enum Destination: String, CaseIterable, Sendable, Identifiable {
    case model, data, train, tryIt, share

    public var id: String { rawValue }

    /// The catalog's key of its title.
    public var title: String { self == .tryIt ? "try_it" : rawValue }
}

/// A figure with what it is: "4.2 GB", "Size".
public struct Figure: Equatable, Sendable, Identifiable {
    public let value: String
    public let label: String
    public var id: String { label }
}

/// A task that takes long. `fraction` nil: not known.
public struct TransferRow: Equatable, Sendable {
    public let title: String
    public let detail: String
    public let fraction: Double?
}

/// What is wrong, in words. `action`: what a button in the card does, with its title.
public struct ProblemCard: Equatable, Sendable {
    public let what: String
    public let todo: String
    public let detail: String?
    public let action: Problem.Action?
    public let actionTitle: String?
}

/// The whole app. One is made a process.
@MainActor @Observable public final class MainModel {
    public let state: AppState
    public let words: any Words
    public let model: ModelScreenModel
    public let data: DataScreenModel
    public let train: TrainScreenModel
    public let tryIt: TryScreenModel
    public let share: ShareScreenModel

    /// The section that is shown; the app changes it where something leads to another.
    public var shown = Destination.model

    public init(places: Places, services: Services, words: any Words) { fatalError("in the making") }

    /// Lists what is there and shows the run as it was left. Once, when the process begins.
    public func begin() { fatalError("in the making") }

    public var problem: ProblemCard? { fatalError("in the making") }
    /// What the card's button does; the view opens the settings where that is what it is.
    public func act() { fatalError("in the making") }
    public func dismissProblem() { fatalError("in the making") }

    /// The app is seen again: a run that the system made wait goes on, and what came meanwhile is found.
    public func cameToFront() { fatalError("in the making") }
    /// The app is not seen any more.
    public func wentToBack() { fatalError("in the making") }
    /// Of `UIApplication.didReceiveMemoryWarningNotification`.
    public func memoryIsShort() { fatalError("in the making") }

    /// A file or folder that was opened with the app: a bundle, data or an adapter, as it turns out.
    public func open(_ url: URL) { fatalError("in the making") }
    /// Text from a share sheet: it becomes one of the person's own messages.
    public func receive(text: String) { fatalError("in the making") }

    /// The system started the app at night. Trains until the run ends or the task is cancelled; whether it ended.
    public func trainAtNight() async -> Bool { fatalError("in the making") }
}
