package lcsbmobile.app

/** Marks a function that calls API newer than 26 behind a check of SDK_INT. animal-sniffer passes over it; a person has looked. */
@Target(AnnotationTarget.FUNCTION)
@Retention(AnnotationRetention.BINARY)
annotation class Guarded
