package lcsbmobile.app

import android.Manifest
import android.app.backup.FullBackupDataOutput
import android.content.Context
import android.content.pm.PackageManager
import android.content.pm.ServiceInfo
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.mockito.Mockito.mock
import org.mockito.Mockito.verifyNoInteractions
import org.robolectric.util.ReflectionHelpers
import org.robolectric.util.ReflectionHelpers.ClassParameter
import java.io.File
import java.util.Properties

/** What the app may do, and what others may do with it. */
class ManifestTest : AppTest() {
    private val flags = PackageManager.GET_PERMISSIONS or PackageManager.GET_SERVICES or PackageManager.GET_RECEIVERS or
        PackageManager.GET_PROVIDERS
    private val found by lazy { app.packageManager.getPackageInfo(app.packageName, flags) }

    @Test fun `it cannot reach the Internet, and asks for nothing that it does not need`() {
        val expected = setOf(
            Manifest.permission.FOREGROUND_SERVICE,
            "android.permission.FOREGROUND_SERVICE_DATA_SYNC",
            "android.permission.FOREGROUND_SERVICE_SPECIAL_USE",
            "android.permission.POST_NOTIFICATIONS",
            Manifest.permission.RECEIVE_BOOT_COMPLETED,
            Manifest.permission.WAKE_LOCK,
        )
        assertEquals(expected, found.requestedPermissions!!.toSet())
        // where the build put the merged manifest, it tells Robolectric
        val written = Properties().apply { load(ManifestTest::class.java.getResourceAsStream("/com/android/tools/test_config.properties")) }
        val merged = File(written.getProperty("android_merged_manifest")).readText()
        assertFalse("the merged manifest", "INTERNET" in merged.substringAfter("<manifest"))
    }

    @Test fun `only the launcher and the job scheduler may start a part of it`() {
        val service = found.services!!.single { it.name == TrainService::class.java.name }
        assertFalse(service.exported)
        assertEquals(ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE, service.foregroundServiceType)
        val adding = found.services!!.single { it.name == ImportService::class.java.name }
        assertFalse(adding.exported)
        assertEquals(ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC, adding.foregroundServiceType)
        val job = found.services!!.single { it.name == TrainJob::class.java.name }
        assertEquals("android.permission.BIND_JOB_SERVICE", job.permission)
        assertFalse(found.receivers!!.single().exported)
        assertFalse(found.providers!!.single().exported)
        assertTrue(found.providers!!.single().grantUriPermissions)
    }

    @Test fun `nothing is backed up unless the person says so, and then adapters and settings only`() {
        val agent = Backup()
        ReflectionHelpers.callInstanceMethod<Unit>(agent, "attachBaseContext", ClassParameter.from(Context::class.java, app))
        val output = mock(FullBackupDataOutput::class.java)
        app.settings.backup = false
        agent.onFullBackup(output)
        verifyNoInteractions(output)
        for (rules in listOf("backup_rules", "extraction_rules")) {
            val paths = Regex("path=\"(.*?)\"").findAll(File("src/main/res/xml/$rules.xml").readText()).map { it.groupValues[1] }.toSet()
            assertEquals(setOf("adapters", "settings.xml"), paths)
        }
    }

    @Test fun `a backup has the adapter in use first, and as many as its quota holds`() {
        val (data, files) = temporary.newFolder("data") to temporary.newFolder("files")
        val settings = File(data, "shared_prefs/settings.xml").apply { parentFile!!.mkdirs() }.apply { writeText("<map/>") }
        for (name in listOf("data/1.jsonl", "runs/tiny/run.json", "bundles/tiny/weights.bin")) File(files, name).apply { parentFile!!.mkdirs() }.writeText("x")
        val store = AdapterStore(File(files, "adapters"))
        val made = List(3) { store.add(AdapterRecord(0, "tiny", "n$it", 0)) { file -> file.apply { parentFile!!.mkdirs() }.writeBytes(ByteArray(100_000)) } }
        store.use(made[0])
        val all = Backup.chosen(data, files, -1)
        assertEquals(settings, all.first())
        assertEquals(listOf("1", "1", "in", "3", "3", "2", "2"), all.drop(1).map { it.name.substringBefore('.').substringBefore('-') })
        assertEquals(listOf("1.safetensors", "1.json", "in-use"), Backup.chosen(data, files, 150_000).drop(1).map { it.name })
        assertEquals(listOf(settings), Backup.chosen(data, files, 50_000))
        for (quota in 0L..400_000L step 9973) assertTrue(Backup.chosen(data, files, quota).drop(1).sumOf { it.length() } <= quota)
    }
}
