import Foundation
import LCSBKit
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

/// A choice in a menu.
public struct Choice<Value: Hashable & Sendable>: Equatable, Sendable, Identifiable {
    public let value: Value
    public let title: String
    public var id: Value { value }
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
    @ObservationIgnored let core: Core
    public let model: ModelScreenModel
    public let data: DataScreenModel
    public let train: TrainScreenModel
    public let tryIt: TryScreenModel
    public let share: ShareScreenModel

    /// The section that is shown; the app changes it where something leads to another.
    public var shown = Destination.model

    public init(places: Places, services: Services, words: any Words) {
        core = Core(places, services, words)
        model = ModelScreenModel(core)
        data = DataScreenModel(core)
        train = TrainScreenModel(core)
        tryIt = TryScreenModel(core)
        share = ShareScreenModel(core)
        share.lead = { [unowned self] in shown = $0 }
        share.beside = { [unowned self] in (tryIt.left, tryIt.right) = ($0, $1) }
    }

    public var state: AppState { core.state }
    public var words: any Words { core.words }

    /// Lists what is there and shows the run as it was left. Once, when the process begins.
    public func begin() {
        core.keeping.begin()
        core.bundling.begin()
        core.keeping.list()
        core.reading.begin()
        core.training.showSaved()
    }

    public var problem: ProblemCard? {
        core.state.problem.map { problem in
            ProblemCard(
                what: problem.what(words), todo: problem.todo(words), detail: problem.detail, action: problem.action,
                actionTitle: problem.actionTitle.map { words($0) })
        }
    }

    /// What the card's button does; the view opens the settings where that is what it is.
    public func act() {
        if core.state.problem?.action == .resume { train.start() }
        dismissProblem()
    }

    public func dismissProblem() { core.state.problem = nil }

    /// The app is seen again: a run that the system made wait goes on, and what came meanwhile is found.
    public func cameToFront() {
        core.inFront = true
        core.bundling.look()
        core.training.goOn()
    }

    /// The app is not seen any more.
    public func wentToBack() {
        core.inFront = false
        core.training.wentToBack()
    }

    /// Of `UIApplication.didReceiveMemoryWarningNotification`.
    public func memoryIsShort() {
        core.training.giveMemoryBack()
        if !core.training.running { core.trial.leave() }
    }

    /// A file or folder that was opened with the app: an adapter, a bundle or data, as it turns out.
    public func open(_ url: URL) {
        let isBundle = (try? core.services.files.reach(url) { exists($0.appendingPathComponent("manifest.json")) }) ?? false
        let isPeft = (try? core.services.files.reach(url) { exists($0.appendingPathComponent("adapter_config.json")) }) ?? false
        if isBundle {
            shown = .model
            model.add(folder: url)
        } else if isPeft || url.pathExtension.lowercased() == "safetensors" {
            shown = .share
            share.add(url)
        } else {
            shown = .data
            data.offer(file: url)
        }
    }

    /// Text from a share sheet: it becomes one of the person's own messages.
    public func receive(text: String) {
        shown = .data
        data.offer(text: text)
    }

    /// The system started the app at night. Trains until the run ends or the task is cancelled; whether nothing is left to do.
    public func trainAtNight() async -> Bool { await core.training.trainAtNight() }
}
