package lcsbmobile.app

import android.app.backup.BackupAgent
import android.app.backup.BackupDataInput
import android.app.backup.BackupDataOutput
import android.app.backup.FullBackupDataOutput
import android.os.ParcelFileDescriptor

/** Gives out what res/xml allows, data and runs, only when the person switched that on. The rules themselves cannot depend on a choice. */
class Backup : BackupAgent() {
    override fun onFullBackup(data: FullBackupDataOutput) {
        if (Settings(this).backup) super.onFullBackup(data)
    }

    /** The old way, key by key, is not used (android:fullBackupOnly). */
    override fun onBackup(oldState: ParcelFileDescriptor?, data: BackupDataOutput?, newState: ParcelFileDescriptor?) = Unit

    override fun onRestore(data: BackupDataInput?, appVersionCode: Int, newState: ParcelFileDescriptor?) = Unit
}
