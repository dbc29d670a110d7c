@testable import LCSBKit

private let elements = CrossingBundle.tokens * CrossingBundle.width

private func each(_ value: (Int) -> Double) -> [Double] { (0..<elements).map(value) }

/// A step on CrossingBundle in double precision, by the formulas of its table.
final class CrossingReference {
    private let layers = CrossingBundle.places
    private let factors = CrossingReference.factors()
    private let scale: [Double]
    private var inputs: [[Double]] = []
    private var given: [String: [Double]] = [:]
    private var top: [Double]

    var loss: Double { top.reduce(0) { $0 + $1 * $1 } / 2 }

    init(_ batch: Batch) {
        let width = CrossingBundle.width
        scale = each { Double(batch.positionIds[$0 / width]) + 1 }
        top = each { Double(CrossingBundle.embedding[Int(batch.inputIds[$0 / width]) * width + $0 % width]) }
        for (layer, place) in layers.enumerated() {
            let (before, s) = (top, factors[layer])
            inputs.append(before)
            let added = product(layer)
            top = each { before[$0] + added[$0] * s }
            for value in place.gives.values { given[value] = each { before[$0] * s } }
        }
    }

    /// s, and b where a layer has one.
    static func factors() -> [Double] {
        let (layers, adapter) = (CrossingBundle.places, try! CrossingBundle.adapter())
        let ends = layers.map(\.offset) + [adapter.count]
        return layers.enumerated().map { layer, place in
            let bias = place.kind == "give" ? CrossingBundle.biases[place.number] : 0
            return (ends[layer]..<ends[layer + 1]).reduce(Double(bias)) { $0 + Double(adapter[$1]) }
        }
    }

    /// What a layer multiplies with s and adds to h; so it is the derivative of the layer's output by s too.
    private func product(_ layer: Int) -> [Double] {
        let place = layers[layer]
        switch place.kind {
        case "give": return inputs[layer]
        case "take": return each { taken(place, "value")[$0] * scale[$0] }
        default: return each { taken(place, "left")[$0] * taken(place, "right")[$0] }
        }
    }

    private func taken(_ place: LayerEntry, _ name: String) -> [Double] { given[place.takes[name]!]! }

    /// Of each trained layer's s. A layer outside `propagate` passes g on, and what it gave has no gradient.
    func gradients(_ subset: Subset) -> [Int: Double] {
        var owed: [String: [Double]] = [:]
        var found: [Int: Double] = [:]
        var g = top
        for layer in subset.propagate.filter({ $0 >= subset.train[0] }).reversed() {
            let (place, s, above) = (layers[layer], factors[layer], g)
            func owe(_ name: String, _ gradient: (Int) -> Double) {
                let value = place.takes[name]!
                let sum = owed[value] ?? each { _ in 0 }
                owed[value] = each { sum[$0] + gradient($0) }
            }
            var upper = above  // of what the layer adds, as its value is the same
            switch place.kind {
            case "give":
                let sum = place.gives["value"].flatMap { owed[$0] }
                upper = each { above[$0] + (sum?[$0] ?? 0) }
                g = each { above[$0] + upper[$0] * s }
            case "take": owe("value") { above[$0] * s * scale[$0] }
            default:
                owe("left") { above[$0] * s * taken(place, "right")[$0] }
                owe("right") { above[$0] * s * taken(place, "left")[$0] }
            }
            if subset.train.contains(layer) { found[layer] = zip(upper, product(layer)).reduce(0) { $0 + $1.0 * $1.1 } }
        }
        return found
    }
}
