import AppModel
import Foundation
import UserNotifications

/// Notices outside of the app.
struct Notices: Notifier {
    func ask() async -> Bool { (try? await UNUserNotificationCenter.current().requestAuthorization(options: [.alert, .sound])) ?? false }

    func post(title: String, text: String) async {
        let content = UNMutableNotificationContent()
        (content.title, content.body) = (title, text)
        // One identifier: a newer notice takes the place of an older one.
        try? await UNUserNotificationCenter.current().add(UNNotificationRequest(identifier: "run", content: content, trigger: nil))
    }
}
