import Foundation

// Figures as the language of the sentences writes them.

extension Words {
    func count(_ count: Int) -> String { count.formatted(.number.locale(locale)) }

    func decimal(_ value: Double, digits: Int) -> String {
        value.isFinite ? value.formatted(.number.precision(.fractionLength(digits)).locale(locale)) : "–"
    }

    func percent(_ percent: Int) -> String { (Double(percent) / 100).formatted(.percent.precision(.fractionLength(0)).locale(locale)) }

    /// 1 MB is 1,000,000 bytes, as the system's settings count.
    func bytes(_ bytes: Int) -> String {
        switch bytes {
        case ..<1_000_000: self("kilobytes", count((bytes + 999) / 1000))
        case ..<10_000_000: self("megabytes", decimal(Double(bytes) / 1e6, digits: 1))
        case ..<1_000_000_000: self("megabytes", count(bytes / 1_000_000))
        default: self("gigabytes", decimal(Double(bytes) / 1e9, digits: 1))
        }
    }

    func seconds(_ seconds: Double) -> String { self("seconds", decimal(seconds, digits: seconds < 1 ? 2 : 1)) }

    /// A time to wait, rounded to what a person plans with.
    func duration(_ seconds: Double) -> String {
        let minutes = seconds.isFinite ? Int((seconds / 60).rounded()) : 0
        if minutes < 1 { return self("under_a_minute") }
        return minutes < 90 ? self("minutes", .count(minutes)) : self("hours", .count(Int((Double(minutes) / 60).rounded())))
    }

    func date(_ date: Date) -> String { date.formatted(Date.FormatStyle(date: .abbreviated, time: .shortened, locale: locale)) }

    /// As people call it.
    func runtime(_ target: String) -> String {
        ["onnxruntime": "ONNX Runtime", "executorch": "ExecuTorch", "coreai": "Core AI", "coreml": "Core ML"][target] ?? target
    }

    func title(_ transfer: Transfer) -> String {
        switch transfer.kind {
        case .copying: self("copying", transfer.name)
        case .verifying: self("verifying", transfer.name)
        case .testing: self("measuring")
        case .reading: self("reading", transfer.name)
        }
    }

    func row(_ transfer: Transfer) -> TransferRow {
        let (done, total) = (transfer.done, transfer.total)
        let detail = total > 0 ? self("progress_bytes", bytes(done), bytes(total)) : done > 0 ? bytes(done) : ""
        return TransferRow(title: title(transfer), detail: detail, fraction: transfer.fraction)
    }

    /// In the screen's language, which may have changed since the person's own messages were read.
    func title(_ data: DataInfo) -> String { data.typed == nil ? data.name : self("typed_name") }
}
