/// The layers from the first to the last as this step treats them. `running`: the one at work, -1 for none. `spoken`: in words.
public struct LayerStripData: Equatable, Sendable {
    public var roles: [LayerRole]
    public var running: Int
    public var spoken: String

    init(_ roles: [LayerRole], running: Int, _ words: any Words) {
        (self.roles, self.running) = (roles, running)
        let trained = roles.indices.filter { roles[$0] == .trained }
        let passed = Self.ranges(roles.indices.filter { roles[$0] == .passed })
        spoken = trained.isEmpty
            ? words("layers_none")
            : words("layers_words", words.count(roles.count), Self.ranges(trained), passed.isEmpty ? "–" : passed)
    }

    /// Layer numbers from 0 as people count them: 1–3, 5.
    static func ranges(_ layers: [Int]) -> String {
        var runs: [ClosedRange<Int>] = []
        for layer in layers {
            if let last = runs.last, last.upperBound == layer - 1 {
                runs[runs.count - 1] = last.lowerBound...layer
            } else {
                runs.append(layer...layer)
            }
        }
        return runs.map { $0.count == 1 ? "\($0.lowerBound + 1)" : "\($0.lowerBound + 1)–\($0.upperBound + 1)" }.joined(separator: ", ")
    }
}
