"""Do: the resident model and its generation engine; the judge client and the local judge."""
