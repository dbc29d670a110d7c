import AppModel
import SwiftUI
import UniformTypeIdentifiers

/// The bundles that are here, one of which is chosen, and how others come here.
struct ModelScreen: View {
    private let main: MainModel
    private let model: ModelScreenModel
    @State private var picking = false
    /// Who is asked about.
    @State private var removing: String?

    init(main: MainModel) { (self.main, model) = (main, main.model) }

    var body: some View {
        List {
            ProblemSection(main: main)
            Section { Text("model_intro") }
            if let transfer = model.transfer {
                Section { TransferView(transfer: transfer) { model.cancel() } }
            }
            if let name = model.unfinished { unfinished(name) }
            Section {
                ForEach(model.rows) { row in
                    BundleCard(row: row, canChoose: model.canChoose, remove: main.words("remove_bundle", row.id)) {
                        model.choose(row.id)
                    } onRemove: {
                        removing = row.id
                    }
                }
            }
            adding
        }
        .fileImporter(isPresented: $picking, allowedContentTypes: [.folder]) { picked in
            if case .success(let folder) = picked { model.add(folder: folder) }
        }
        .confirmationDialog(
            main.words("remove_title", removing ?? ""), isPresented: asking, titleVisibility: .visible, presenting: removing
        ) { name in
            Button("remove", role: .destructive) { model.remove(name) }
            Button("cancel", role: .cancel) {}
        } message: { _ in
            Text("remove_text")
        }
    }

    private func unfinished(_ name: String) -> some View {
        Section {
            Text(main.words("unfinished_import", name))
            ButtonRow {
                Button("import_go_on") { model.goOnImporting() }
                Button("import_discard", role: .destructive) { model.discardImport() }
            }
        }
    }

    private var adding: some View {
        Section {
            ForEach(model.found) { found in
                Button(main.words("add_found", found.name), systemImage: "plus") { model.add(found: found) }.disabled(!model.canAdd)
            }
            Button("add_folder", systemImage: "folder") { picking = true }.disabled(!model.canAdd)
            if model.canAddDemo { Button("add_demo", systemImage: "arrow.uturn.backward") { model.addDemo() }.disabled(!model.canAdd) }
        } footer: {
            VStack(alignment: .leading, spacing: 8) {
                Note("model_private")
                Note("model_takes")
            }
        }
    }

    private var asking: Binding<Bool> { Binding(get: { removing != nil }, set: { if !$0 { removing = nil } }) }
}

/// A bundle with its figures; a tap chooses it.
private struct BundleCard: View {
    let row: BundleRow
    let canChoose: Bool
    /// What the button that removes it is called.
    let remove: String
    let onChoose: @MainActor () -> Void
    let onRemove: @MainActor () -> Void

    var body: some View {
        VStack(alignment: .leading, spacing: 12) {
            HStack(alignment: .firstTextBaseline) {
                Button(action: onChoose) {
                    HStack(alignment: .firstTextBaseline) {
                        Image(systemName: row.chosen ? "checkmark.circle.fill" : "circle").foregroundStyle(.tint).accessibilityHidden(true)
                        VStack(alignment: .leading) {
                            Text(row.id).font(.headline)
                            Text(row.source).font(.subheadline).foregroundStyle(.secondary)
                        }
                    }
                }
                .buttonStyle(.plain)
                .disabled(!canChoose)
                .accessibilityLabel(row.spoken)
                .accessibilityAddTraits(row.chosen ? [.isButton, .isSelected] : .isButton)
                Spacer()
                Button(action: onRemove) { Image(systemName: "trash").accessibilityHidden(true) }
                    .buttonStyle(.borderless)
                    .disabled(!row.canRemove)
                    .accessibilityLabel(remove)
            }
            FigureGrid(figures: row.figures)
            Text(row.check).font(.footnote).foregroundStyle(.secondary)
        }
    }
}
