import Foundation
import LCSBKit
import Observation

/// What there is to train on: a file of the data directory, and the name that the person knows it by, or `typed`: their own messages.
struct ChosenData: Codable, Equatable, Sendable {
    var file: String
    var name: String
    var typed = false
}

/// What the person chose, kept over the app's restarts. `hadBundle`: there was a bundle once, if only the tiny one: who removed all does not
/// get that one again. `beginning`: the adapter that the next run begins with.
@MainActor @Observable final class Settings {
    struct Values: Equatable, Sendable {
        var chosen: String?
        var data: ChosenData?
        var steps = 100
        var budget: Int?
        var trainsAtNight = true
        var beginning: String?
        var askedToNotify = false
        var hadBundle = false
        var backup = false
        var system = ""
        var temperature = 0.8
        var asChat: Bool?
    }

    @ObservationIgnored private let file: URL
    private(set) var values: Values

    init(_ file: URL) {
        self.file = file
        values = AppModel.read(Values.self, from: file) ?? Values()
    }

    /// Kept at once; what cannot be written is no more than forgotten.
    subscript<Value>(_ path: WritableKeyPath<Values, Value>) -> Value {
        get { values[keyPath: path] }
        set {
            values[keyPath: path] = newValue
            try? AppModel.write(values, to: file)
        }
    }

    /// Before it is stored the data that was chosen must not go. Throws STORAGE_FULL, STORAGE_FAILED.
    func choose(_ data: ChosenData?) throws {
        var values = values
        values.data = data
        try AppModel.write(values, to: file)
        self.values = values
    }
}

/// A value that is missing is as it was at first: an older version of the app did not know it.
extension Settings.Values: Codable {
    private enum CodingKeys: CodingKey {
        case chosen, data, steps, budget, trainsAtNight, beginning, askedToNotify, hadBundle, backup, system, temperature, asChat
    }

    init(from decoder: any Decoder) throws {
        let found = try decoder.container(keyedBy: CodingKeys.self)
        func take<Value: Decodable>(_ key: CodingKeys, _ into: inout Value) throws {
            if let value = try found.decodeIfPresent(Value.self, forKey: key) { into = value }
        }
        try take(.chosen, &chosen)
        try take(.data, &data)
        try take(.steps, &steps)
        try take(.budget, &budget)
        try take(.trainsAtNight, &trainsAtNight)
        try take(.beginning, &beginning)
        try take(.askedToNotify, &askedToNotify)
        try take(.hadBundle, &hadBundle)
        try take(.backup, &backup)
        try take(.system, &system)
        try take(.temperature, &temperature)
        try take(.asChat, &asChat)
    }
}
