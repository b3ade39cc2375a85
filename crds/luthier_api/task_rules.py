"""What a task has no use for is refused rather than ignored: the sentences, and the rules for the API server.

`TrainingSpec` says the same to those without a cluster. A rule must not stumble over what is missing: the API server
would then refuse even the status that says so.
"""

NO_LABELS = "regression has no labels: remove labels, labelMap, classWeights and labelSmoothing"
NO_PAIRS = "token-classification has no second text: remove textPairColumn"
NO_LABEL_COLUMNS = "labelColumns applies to multi-label only: set task: multi-label, or name one labelColumn"
NO_TEXT_COLUMNS = "token-classification reads its words from one column: give textColumn instead of textColumns"
NO_SEPARATOR = "labelSeparator applies to multi-label and token-classification only"

TASK_RULES: tuple[tuple[str, str], ...] = (
    (
        "self.task != 'regression' || !has(self.dataset) || (!has(self.labels) && !has(self.dataset.labelMap)"
        " && self.hyperparameters.classWeights == 'none'"
        " && string(self.hyperparameters.labelSmoothing).matches('^0([.]0*)?$'))",
        NO_LABELS,
    ),
    (
        "self.task != 'token-classification' || !has(self.dataset) || !has(self.dataset.train.textPairColumn)",
        NO_PAIRS,
    ),
    (
        "self.task in ['multi-label', 'token-classification'] || !has(self.dataset)"
        " || !(has(self.dataset.train.labelSeparator)"
        " || (has(self.dataset.eval) && has(self.dataset.eval.labelSeparator))"
        " || (has(self.dataset.test) && has(self.dataset.test.labelSeparator)))",
        NO_SEPARATOR,
    ),
    (
        "self.task == 'multi-label' || !has(self.dataset) || !has(self.dataset.train.labelColumns)",
        NO_LABEL_COLUMNS,
    ),
    (
        "self.task != 'token-classification' || !has(self.dataset) || !(has(self.dataset.train.textColumns)"
        " || (has(self.dataset.eval) && has(self.dataset.eval.textColumns))"
        " || (has(self.dataset.test) && has(self.dataset.test.textColumns)))",
        NO_TEXT_COLUMNS,
    ),
)
