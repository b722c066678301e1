package featurestore

// DifferencesOfViews compares two definitions: whether what makes a version is the same, and the words.
func DifferencesOfViews(old, now View) (same bool, essential, said []string) {
	d := now.wordingOf(&old)
	return sameEssence(old.essence(), now.essence()), d.essential, d.said
}

// DifferencesOfServices is DifferencesOfViews for services.
func DifferencesOfServices(old, now Service) (same bool, essential, said []string) {
	d := now.wordingOf(&old)
	return sameEssence(old.essence(), now.essence()), d.essential, d.said
}
