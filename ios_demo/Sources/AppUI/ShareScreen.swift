import AppModel
import SwiftUI
import UniformTypeIdentifiers

/// What the chosen model has learned, and the last run's report: to hand out, to try, to train on.
struct ShareScreen: View {
    /// PEFT's directory, or the file in it.
    static let types: [UTType] = [.folder, .data]

    private let main: MainModel
    @Bindable private var model: ShareScreenModel
    @State private var picking = false
    @State private var deleting: AdapterRow?
    @State private var renaming: AdapterRow?
    @State private var name = ""

    init(main: MainModel) { (self.main, model) = (main, main.share) }

    var body: some View {
        List {
            ProblemSection(main: main)
            adapters
            if !model.report.isEmpty {
                Section {
                    FigureGrid(figures: model.report)
                    ButtonRow { Button("share_report") { model.shareReport() }.disabled(!model.canShareReport) }
                } header: {
                    Text("report_title")
                }
            }
            Section {
                Text("privacy_text")
                Toggle("backup", isOn: $model.backup)
            } header: {
                Text("privacy")
            }
        }
        .fileImporter(isPresented: $picking, allowedContentTypes: Self.types) { picked in
            if case .success(let file) = picked { model.add(file) }
        }
        .sheet(item: $model.shared) { HandOut(file: $0) }
        .confirmationDialog(
            main.words("delete_adapter_title", deleting?.name ?? ""), isPresented: asking, titleVisibility: .visible, presenting: deleting
        ) { row in
            Button("delete", role: .destructive) { model.delete(row.id) }
            Button("cancel", role: .cancel) {}
        } message: { _ in
            Text("delete_adapter_text")
        }
        .alert("rename_title", isPresented: naming, presenting: renaming) { row in
            TextField("rename_title", text: $name)
            Button("rename") { model.rename(row.id, to: name) }
            Button("cancel", role: .cancel) {}
        } message: { row in
            Text(row.name)
        }
    }

    private var adapters: some View {
        Section {
            Text(model.sentence)
            ForEach(model.rows) { row in
                AdapterCard(row: row, others: model.rows.filter { $0.id != row.id }, model: model, words: main.words) {
                    (name, renaming) = (row.name, row)
                } onDelete: {
                    deleting = row
                }
            }
            if model.packing { ProgressView("packing") }
            Button("import_adapter", systemImage: "plus") { picking = true }.disabled(!model.canImport)
        } header: {
            Text("adapter_title")
        }
    }

    private var asking: Binding<Bool> { Binding(get: { deleting != nil }, set: { if !$0 { deleting = nil } }) }
    private var naming: Binding<Bool> { Binding(get: { renaming != nil }, set: { if !$0 { renaming = nil } }) }
}

/// An adapter, and what can be done with it.
private struct AdapterCard: View {
    let row: AdapterRow
    /// Those it can be held against, besides the model as it came.
    let others: [AdapterRow]
    let model: ShareScreenModel
    let words: any Words
    let onRename: @MainActor () -> Void
    let onDelete: @MainActor () -> Void

    var body: some View {
        HStack(alignment: .firstTextBaseline) {
            VStack(alignment: .leading) {
                Text(row.name).font(.headline)
                Text(row.detail).font(.subheadline).foregroundStyle(.secondary)
                if let result = row.result { Text(result).font(.subheadline).monospacedDigit() }
            }
            .accessibilityElement(children: .ignore)
            .accessibilityLabel(row.spoken)
            Spacer()
            Menu {
                Button("share_adapter", systemImage: "square.and.arrow.up") { model.share(row.id) }
                Button("try_adapter", systemImage: "bubble.left.and.bubble.right") { model.tryOut(row.id) }
                Menu {
                    Button(words.say("voice_base", [])) { model.compare(row.id, with: nil) }
                    ForEach(others) { other in
                        Button(other.name) { model.compare(row.id, with: other.id) }
                    }
                } label: {
                    Label("compare_adapter", systemImage: "rectangle.split.2x1")
                }
                Button("continue_training", systemImage: "chart.xyaxis.line") { model.continueTraining(row.id) }
                    .disabled(!model.canContinue)
                Button("rename", systemImage: "pencil", action: onRename)
                Button("delete", systemImage: "trash", role: .destructive, action: onDelete)
            } label: {
                Image(systemName: "ellipsis.circle").imageScale(.large).accessibilityHidden(true)
            }
            .disabled(!model.canChange)
            .accessibilityLabel(words("adapter_menu", row.name))
        }
    }
}

/// What was packed, before it is handed out: what it is called, and the system's share sheet.
private struct HandOut: View {
    let file: SharedFile
    @Environment(\.dismiss) private var dismiss

    var body: some View {
        NavigationStack {
            List {
                Text(file.subject).font(.headline)
                Text(verbatim: file.url.lastPathComponent).font(.subheadline).foregroundStyle(.secondary)
                ShareLink(item: file.url, subject: Text(file.subject)) { Label("share", systemImage: "square.and.arrow.up") }
            }
            .navigationTitle("share")
            .toolbar {
                ToolbarItem(placement: .cancellationAction) { Button("dismiss") { dismiss() } }
            }
        }
    }
}
