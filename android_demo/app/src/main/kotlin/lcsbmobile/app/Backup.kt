package lcsbmobile.app

import android.app.backup.BackupAgent
import android.app.backup.BackupDataInput
import android.app.backup.BackupDataOutput
import android.app.backup.FullBackupDataOutput
import android.os.ParcelFileDescriptor
import java.io.File

/**
 * Gives out the settings and the adapters, only when the person switched that on; data, models and what runs save are far more than the 25 MB that
 * the system takes. Of the adapters those that are in use come first, then the newest, as many as fit: beyond its quota the system would keep nothing.
 *
 * What comes back is put where the rules in res/xml allow it.
 */
class Backup : BackupAgent() {
    override fun onFullBackup(data: FullBackupDataOutput) {
        if (!Settings(this).backup) return
        for (file in chosen(dataDir, filesDir, data.quota)) fullBackupFile(file, data)
    }

    /** The old way, key by key, is not used (android:fullBackupOnly). */
    override fun onBackup(oldState: ParcelFileDescriptor?, data: BackupDataOutput?, newState: ParcelFileDescriptor?) = Unit

    override fun onRestore(data: BackupDataInput?, appVersionCode: Int, newState: ParcelFileDescriptor?) = Unit

    companion object {
        private const val BLOCK = 512L // of the archive that the system makes, whose headers take some too
        private const val HEADERS = 3 * BLOCK

        /** What goes into a backup of at most [quota] bytes; below zero the system does not say. An adapter goes whole or not at all. */
        fun chosen(dataDirectory: File, filesDirectory: File, quota: Long): List<File> {
            val settings = File(dataDirectory, "shared_prefs/settings.xml")
            val chosen = listOf(settings).filter { it.isFile }.toMutableList()
            var left = (if (quota < 0) Long.MAX_VALUE else quota) - chosen.sumOf(::archived)
            for (files in AdapterStore(File(filesDirectory, "adapters")).byWorth()) {
                val size = files.sumOf(::archived)
                if (size > left) continue
                left -= size
                chosen += files
            }
            return chosen
        }

        private fun archived(file: File) = (file.length() + BLOCK - 1) / BLOCK * BLOCK + HEADERS
    }
}
