import Foundation
import Observation

/// What the Train screen shows and can do.
@MainActor @Observable public final class TrainScreenModel {
    @ObservationIgnored private let core: Core
    private var state: AppState { core.state }
    private var run: RunState { core.state.run }
    private var words: any Words { core.words }

    init(_ core: Core) { self.core = core }

    // What it is at

    public var title: String {
        let key = run.phase == .none && !ready ? "phase_not_ready" : "phase_\(run.phase.rawValue)"
        return words(key)
    }

    public var sentence: String {
        let at = words("step_of", words.count(run.step), words.count(run.steps))
        switch run.phase {
        case .none: return idle
        case .scheduled: return words("scheduled_text")
        case .opening, .evaluating, .pausing, .paused, .cancelled: return at
        case .testing: return words("testing_text")
        case .training:
            let slow = run.decision.reason.map { ". " + words($0 == .lowPower ? "slow_low_power" : "slow_warm") } ?? ""
            return timeLeft(at) + slow
        case .failed: return run.resumable ? at : idle
        case .waiting: return waiting
        case .interrupted: return run.decision.waits ? at + ". " + waiting : words("interrupted_text", at)
        case .finished: return at + ". " + words("finished_text")
        }
    }

    private var idle: String {
        if state.bundle == nil { return words("needs_model") }
        guard let data = state.data else { return words("needs_data") }
        if !data.suffices { return words("needs_examples") }
        return words("ready_text", words("steps_label", .count(core.settings[\.steps])), words.title(data))
    }

    private func timeLeft(_ at: String) -> String {
        guard let seconds = run.secondsAStep else { return at }
        return words("time_left", at, words.duration(seconds * Double(run.steps - run.step)))
    }

    private var waiting: String {
        switch run.decision.reason {
        case .battery: words("wait_battery", words.percent(TrainingPolicy.batteryAgain))
        case .memory: words("wait_memory")
        case .power: words("wait_power")
        case .background: words("wait_background")
        default: words("wait_hot")
        }
    }

    /// 0 to 1; nil: no bar.
    public var fraction: Double? {
        (run.active || run.resumable) && run.steps > 0 ? min(1, Double(run.step) / Double(run.steps)) : nil
    }

    /// Something is done whose end is not known.
    public var busy: Bool {
        switch run.phase {
        case .opening, .testing, .evaluating, .pausing: true
        default: false
        }
    }

    // What can be done

    private var ready: Bool { state.bundle != nil && (run.resumable || state.data?.suffices == true) }
    private var ended: Bool { run.phase == .finished || run.phase == .cancelled }

    /// "Start", "Resume", "Train again".
    public var startTitle: String { words(ended ? "start_again" : run.phase == .scheduled ? "start_now" : run.resumable ? "resume" : "start") }
    public var showsStart: Bool { !run.active }
    public var canStart: Bool { !run.active && ready }
    /// A run that is new or paused can be left to the night.
    public var showsStartAtNight: Bool { canStart && run.phase != .scheduled }
    public var showsPause: Bool { run.active }
    public var canPause: Bool { run.active && run.phase != .pausing }
    public var showsStop: Bool { run.active || run.resumable }
    public var canStop: Bool { showsStop && run.phase != .pausing }
    /// A run is finished: what it learned can be tried.
    public var showsTry: Bool { ended && state.voice != nil }

    public func start() { if canStart { core.training.start() } }
    public func startAtNight() { if showsStartAtNight { core.training.start(atNight: true) } }
    public func pause() { core.training.pause() }
    /// What it has learned so far stays; ask before (`stop_title`, `stop_text`).
    public func stop() { core.training.cancel() }

    // Details

    public var chart: LossChartData { LossChartData(run, words) }

    public var layers: LayerStripData {
        LayerStripData(run.roles.isEmpty ? state.bundle?.schedule.first ?? [] : run.roles, running: run.phase == .training ? run.layer : -1, words)
    }

    /// A step, memory, battery, temperature.
    public var phone: [Figure] {
        let (vitals, unknown) = (state.vitals, "–")
        let peak = vitals.peakMemory > 0 ? words("memory_peak", words.bytes(vitals.peakMemory)) : words("memory")
        let temperature = vitals.thermal == .unknown ? unknown : words("thermal_\(vitals.thermal)")
        return [
            Figure(value: run.secondsAStep.map(words.seconds) ?? unknown, label: words("seconds_a_step")),
            Figure(value: vitals.memory > 0 ? words.bytes(vitals.memory) : unknown, label: peak),
            Figure(value: vitals.battery >= 0 ? words.percent(vitals.battery) : unknown, label: words(vitals.charging ? "battery_charging" : "battery")),
            Figure(value: temperature, label: words("temperature")),
        ]
    }

    // Options: of the next run

    public var showsOptions: Bool { !run.active }
    public var canChangeSteps: Bool { !run.active && !run.resumable }
    public static let stepChoices = [8, 20, 40, 60, 100, 150, 200, 300, 500, 1000, 2000]
    private static let budgetChoices = [128_000_000, 256_000_000, 512_000_000, 1_000_000_000, 2_000_000_000]

    /// An index into `stepChoices`.
    public var stepChoice: Int {
        get { Self.stepChoices.lastIndex { $0 <= core.settings[\.steps] } ?? 0 }
        set {
            guard Self.stepChoices.indices.contains(newValue), newValue != stepChoice else { return }
            core.settings[\.steps] = Self.stepChoices[newValue]
            if run.phase == .none { core.state.run.steps = core.settings[\.steps] }
        }
    }

    /// "100 steps · about 4 minutes".
    public var stepsLabel: String {
        let steps = canChangeSteps ? core.settings[\.steps] : run.steps
        let label = words("steps_label", .count(steps))
        guard canChangeSteps, let seconds = state.bundle?.secondsAStep else { return label }
        return label + " · " + words("about", words.duration(seconds * Double(steps)))
    }

    /// Bytes that training may take; nil: what is free.
    public var budgets: [Choice<Int?>] {
        let free = core.services.device.availableMemory().map(words.bytes) ?? words("unknown")
        return [Choice(value: nil, title: words("budget_auto", free))] + Self.budgetChoices.map { Choice(value: $0, title: words.bytes($0)) }
    }
    public var budget: Int? {
        get { core.settings[\.budget] }
        set { core.settings[\.budget] = newValue }
    }

    /// Whether a run that was interrupted goes on at night.
    public var trainsAtNight: Bool {
        get { core.settings[\.trainsAtNight] }
        set {
            core.settings[\.trainsAtNight] = newValue
            core.training.schedule()
        }
    }

    /// What the next run begins with; nil: the model as it came.
    public var beginnings: [Choice<String?>] {
        [Choice(value: nil, title: words("voice_base"))] + state.adapters.map { Choice(value: $0.id, title: $0.name) }
    }
    public var beginning: String? {
        get { core.settings[\.beginning] }
        set { core.settings[\.beginning] = newValue }
    }
}
