import AppModel
import SwiftUI
import UniformTypeIdentifiers

/// What there is to train on: a file, or messages that are written here.
struct DataScreen: View {
    /// Any file: what is no text, or no example, is refused in words. Types of files that no app declares would else be grey.
    static let types: [UTType] = [.text, .json, .data]

    private let main: MainModel
    private let model: DataScreenModel
    /// What is to follow once the person has agreed that their messages go.
    @State private var replacing: Replacement?
    @State private var picking = false
    @State private var deleting = false

    private enum Replacement { case file, sample }

    init(main: MainModel) { (self.main, model) = (main, main.data) }

    var body: some View {
        List {
            ProblemSection(main: main)
            Section {
                Text(model.title).font(.headline).accessibilityAddTraits(.isHeader)
                if let reading = model.reading {
                    TransferView(transfer: reading) { model.cancel() }
                } else if !model.sentence.isEmpty {
                    Text(model.sentence)
                }
                if !model.figures.isEmpty { FigureGrid(figures: model.figures) }
                if let advice = model.advice { Text(advice).font(.footnote).foregroundStyle(.secondary) }
            }
            Section {
                Button("import_data", systemImage: "doc") { replace(.file) }.disabled(!model.canChange)
                Button("sample_data", systemImage: "text.quote") { replace(.sample) }.disabled(!model.canChange)
                if model.canDelete { Button("delete_data", systemImage: "trash", role: .destructive) { deleting = true } }
            }
            if let preview = model.preview { PreviewSection(preview: preview, model: model) }
            TypedSection(model: model, receive: main.receive(text:))
        }
        .fileImporter(isPresented: $picking, allowedContentTypes: Self.types) { picked in
            if case .success(let file) = picked { model.add(file: file) }
        }
        .confirmationDialog("delete_data_title", isPresented: $deleting, titleVisibility: .visible) {
            Button("delete", role: .destructive) { model.delete() }
            Button("cancel", role: .cancel) {}
        } message: {
            Text(model.deleteQuestion)
        }
        .confirmationDialog("replace_title", isPresented: asking, titleVisibility: .visible, presenting: replacing) { what in
            Button("replace", role: .destructive) { go(on: what) }
            Button("cancel", role: .cancel) {}
        } message: { _ in
            Text(model.replaceQuestion ?? "")
        }
        .confirmationDialog("replace_title", isPresented: offering, titleVisibility: .visible, presenting: model.offered) { file in
            Button("replace", role: .destructive) { model.add(file: file) }
            Button("cancel", role: .cancel) {}
        } message: { _ in
            Text(model.replaceQuestion ?? "")
        }
    }

    /// A file that another app handed over.
    private var offering: Binding<Bool> { Binding(get: { model.offered != nil }, set: { if !$0 { model.offered = nil } }) }
    private var asking: Binding<Bool> { Binding(get: { replacing != nil }, set: { if !$0 { replacing = nil } }) }

    /// What the person wrote here exists nowhere else.
    private func replace(_ what: Replacement) {
        if model.replaceQuestion == nil { go(on: what) } else { replacing = what }
    }

    private func go(on what: Replacement) {
        switch what {
        case .file: picking = true
        case .sample: model.addSample()
        }
    }
}

/// The examples as the loss sees them: what is learned stands out by weight and ground, not by colour alone.
struct PreviewSection: View {
    let preview: Preview
    let model: DataScreenModel

    var body: some View {
        Section {
            Text(Self.written(preview.pieces))
                .accessibilityElement(children: .ignore)
                .accessibilityLabel(preview.spoken)
            HStack {
                Button("preview_previous", systemImage: "chevron.backward") { model.previous() }.disabled(!model.hasPrevious)
                Spacer()
                Text(preview.count).font(.footnote).monospacedDigit()
                Spacer()
                Button("preview_next", systemImage: "chevron.forward") { model.next() }.disabled(!model.hasNext)
            }
            .labelStyle(.iconOnly)
            .buttonStyle(.borderless)
        } header: {
            Text("preview_title")
        } footer: {
            Note("preview_legend")
        }
    }

    static func written(_ pieces: [TextPiece]) -> AttributedString {
        pieces.reduce(into: AttributedString()) { all, piece in
            var text = AttributedString(piece.text)
            text.font = .system(.callout, design: .monospaced, weight: piece.counted ? .bold : .regular)
            if piece.counted {
                text.backgroundColor = Color.accentColor.opacity(0.2)
            } else {
                text.foregroundColor = .secondary
            }
            all += text
        }
    }
}

/// The person's own messages, the newest first.
private struct TypedSection: View {
    @Bindable var model: DataScreenModel
    let receive: @MainActor (String) -> Void

    var body: some View {
        Section {
            TextField("type_hint", text: $model.draft, axis: .vertical).lineLimit(1...6)
            ButtonRow {
                Button("add_message") { model.addDraft() }.disabled(!model.canAddDraft)
                PasteButton(payloadType: String.self) { texts in for text in texts { receive(text) } }.disabled(!model.canChange)
            }
            ForEach(model.typed) { row in
                HStack(alignment: .firstTextBaseline) {
                    Text(row.text)
                    Spacer()
                    Button { model.removeTyped(row.id) } label: { Image(systemName: "minus.circle").accessibilityHidden(true) }
                        .buttonStyle(.borderless)
                        .disabled(!model.canChange)
                        .accessibilityLabel(row.spoken)
                }
            }
            if let more = model.more { Text(more).font(.footnote).foregroundStyle(.secondary) }
        } header: {
            Text("type_title")
        }
    }
}
