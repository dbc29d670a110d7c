import Foundation
import Observation

/// The losses of a run, and its axes. `ticks`: of the vertical axis, with their labels. `spoken`: the curve in words.
public struct LossChartData: Equatable, Sendable {
    public var training: [LossPoint]
    public var evaluation: [LossPoint]
    public var steps: Int
    public var ticks: [Double]
    public var labels: [String]
    public var spoken: String
    /// The newest values: "2.31".
    public var current: String?
}

/// The layers from the first to the last as this step treats them. `running`: the one at work, -1 for none. `spoken`: in words.
public struct LayerStripData: Equatable, Sendable {
    public var roles: [LayerRole]
    public var running: Int
    public var spoken: String
}

/// A choice in a menu.
public struct Choice<Value: Hashable & Sendable>: Equatable, Sendable, Identifiable {
    public let value: Value
    public let title: String
    public var id: Value { value }
}

/// What the Train screen shows and can do.
@MainActor @Observable public final class TrainScreenModel {
    public var title: String { fatalError("in the making") }
    public var sentence: String { fatalError("in the making") }
    /// 0 to 1; nil: no bar.
    public var fraction: Double? { fatalError("in the making") }
    /// Something is done whose end is not known.
    public var busy: Bool { fatalError("in the making") }

    /// "Start", "Resume", "Train again".
    public var startTitle: String { fatalError("in the making") }
    public var showsStart: Bool { fatalError("in the making") }
    public var canStart: Bool { fatalError("in the making") }
    /// A run that is new can be left to the night.
    public var showsStartAtNight: Bool { fatalError("in the making") }
    public var showsPause: Bool { fatalError("in the making") }
    public var canPause: Bool { fatalError("in the making") }
    public var showsStop: Bool { fatalError("in the making") }
    public var canStop: Bool { fatalError("in the making") }
    /// A run is finished: what it learned can be tried.
    public var showsTry: Bool { fatalError("in the making") }

    public func start() { fatalError("in the making") }
    public func startAtNight() { fatalError("in the making") }
    public func pause() { fatalError("in the making") }
    /// What it has learned so far stays; ask before (`stop_title`, `stop_text`).
    public func stop() { fatalError("in the making") }

    public var chart: LossChartData { fatalError("in the making") }
    public var layers: LayerStripData { fatalError("in the making") }
    /// A step, memory, battery, temperature.
    public var phone: [Figure] { fatalError("in the making") }

    // Options: of the next run.
    public var showsOptions: Bool { fatalError("in the making") }
    public var canChangeSteps: Bool { fatalError("in the making") }
    public static let stepChoices = [8, 20, 40, 60, 100, 150, 200, 300, 500, 1000, 2000]
    /// An index into `stepChoices`.
    public var stepChoice: Int {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
    /// "100 steps · 4 minutes".
    public var stepsLabel: String { fatalError("in the making") }
    /// Bytes that training may take; nil: what is free.
    public var budgets: [Choice<Int?>] { fatalError("in the making") }
    public var budget: Int? {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
    /// Whether a run that was interrupted goes on at night.
    public var trainsAtNight: Bool {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
    /// What the next run begins with: nil: the model as it came.
    public var beginnings: [Choice<String?>] { fatalError("in the making") }
    public var beginning: String? {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
}
