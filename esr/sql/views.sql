-- The views. The definitions of the study stand here and nowhere else.

-- The members that count: of each arm, those of the plan recorded last. Imported members stand until an own plan of the same arm is recorded.
-- With `SET VARIABLE as_of = TIMESTAMP '…'` every view shows the plans as they stood then.
CREATE OR REPLACE VIEW current_members AS
WITH recorded AS (
    SELECT experiment, model, arm, scale, plan, recorded_at FROM plans
    UNION ALL
    SELECT DISTINCT experiment, model, arm, scale, plan, TIMESTAMP '1970-01-01'
    FROM members ANTI JOIN plans USING (experiment, model, arm, scale, plan)
), latest AS (
    SELECT experiment, model, arm, scale, plan
    FROM recorded
    WHERE recorded_at <= coalesce(getvariable('as_of')::TIMESTAMP, TIMESTAMP 'infinity')
    QUALIFY row_number() OVER (PARTITION BY experiment, model, arm, scale ORDER BY recorded_at DESC, plan) = 1
)
SELECT
    m.experiment,                     -- as in members
    m.model,                          -- as in members
    m.arm,                            -- as in members
    m.scale,                          -- as in members
    m.plan,                           -- as in members
    m.trial_id,                       -- as in members
    m.question,                       -- as in members
    m.latent,                         -- as in members
    m.latent_label,                   -- as in members
    m.boost,                          -- as in members
    m.threshold                       -- as in members
FROM members m SEMI JOIN latest USING (experiment, model, arm, scale, plan);

-- The arms of current_members. Those of stores that did not record their arms are told from their names.
CREATE OR REPLACE VIEW current_arms AS
WITH present AS (
    SELECT DISTINCT experiment, model, arm, scale,
        try_cast(regexp_extract(arm, '^(?:[a-z-]+-)?([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)$', 1) AS DOUBLE) AS number
    FROM current_members
), told AS (
    SELECT *, CASE
        WHEN arm LIKE 'set-aside%' THEN 'set-aside'
        WHEN experiment = 'exp01' AND arm = 'baseline' THEN 'baseline'
        WHEN regexp_matches(arm, '^absolute-[0-9]') OR (experiment = 'exp02' AND try_cast(arm AS DOUBLE) IS NOT NULL) THEN 'absolute'
        WHEN regexp_matches(arm, '^relative-[0-9]') THEN 'relative'
        WHEN experiment IN ('exp03', 'exp10') THEN 'ablated'
        WHEN experiment = 'exp04' THEN 'tuned'
        WHEN experiment = 'exp05' THEN 'meta-prompt'
        WHEN experiment = 'exp07' THEN 'judge'
        WHEN experiment = 'exp08' THEN 'unsteered'
        ELSE arm
    END AS named FROM present
)
SELECT
    t.experiment,                     -- as in members
    t.model,                          -- as in members
    t.arm,                            -- as in members
    t.scale,                          -- as in members
    CASE WHEN a.arm IS NULL THEN t.named ELSE a.kind END AS kind, -- as in arms
    CASE WHEN a.arm IS NULL AND t.named NOT IN ('baseline', 'set-aside', 'judge') THEN t.number ELSE a.level END AS level, -- as in arms
    coalesce(
        a.place, row_number() OVER (PARTITION BY t.experiment, t.model, t.scale ORDER BY t.named, t.number NULLS FIRST, t.arm) - 1
    )::INTEGER AS place,              -- as in arms; of arms told from their names, by kind and level
    CASE WHEN a.arm IS NULL AND t.named IN ('ablated', 'meta-prompt', 'unsteered') THEN 'exp01/baseline'
        WHEN a.arm IS NULL AND t.named = 'tuned' AND t.arm <> 'base' THEN 'exp04/base'
        ELSE a.against END AS against, -- as in arms
    a.mean,                           -- as in arms
    a.std,                            -- as in arms
    a.arm IS NOT NULL AS recorded     -- whether the arm was recorded; else it is told from its name
FROM told t LEFT JOIN arms a USING (experiment, model, arm, scale);

-- Each member's dose: the length of what is added to the residual stream, in lengths of that stream.
CREATE OR REPLACE VIEW doses AS
WITH newest AS (
    SELECT * FROM norms QUALIFY row_number() OVER (PARTITION BY model, weights, layer ORDER BY measured_at DESC, norm_id) = 1
), steered AS (
    SELECT m.*, t.weights, t.meaning, t.model AS served, list_filter(t.ops, lambda o: o.latent = m.latent AND o.kind <> 'clamp')[1] AS op
    FROM current_members m JOIN trials t USING (trial_id)
)
SELECT
    s.experiment,                     -- as in members
    s.model,                          -- as in members
    s.arm,                            -- as in members
    s.scale,                          -- as in members
    s.trial_id,                       -- as in members
    s.latent,                         -- as in members
    s.boost,                          -- as in members
    s.op.sae AS sae,                  -- as in lengths; NULL: unsteered
    s.op.layer AS layer,              -- decoder block after which it is added; NULL: unsteered
    abs(s.boost) * l.length AS added, -- length of what is added
    n.norm,                           -- as in norms; NULL: not measured
    n.tokens,                         -- as in norms
    n.replies,                        -- as in norms
    CASE WHEN s.boost = 0 THEN 0 ELSE abs(s.boost) * l.length / n.norm END AS dose -- added / norm; 0: unsteered; NULL: not measured
FROM steered s
LEFT JOIN newest n ON n.model = s.served AND n.weights = s.weights AND n.layer = s.op.layer
LEFT JOIN lengths l ON l.model = s.served AND l.sae = s.op.sae AND l.layer = s.op.layer AND l.latent = s.latent
    AND l.content = ((s.meaning::JSON -> 'saes') ->> s.op.sae);

-- Every grade of a member by the newest version of each judge's instructions in that arm, valid or not. A blind grade (latent -1) belongs to every member of its trial.
CREATE OR REPLACE VIEW judged AS
WITH pairs AS (
    SELECT m.experiment, m.model, m.arm, m.scale, m.latent AS member_latent, g.*
    FROM current_members m JOIN grades g ON g.trial_id = m.trial_id AND (g.latent = m.latent OR g.latent = -1)
), versions AS (
    SELECT experiment, model, arm, scale, judge, judge_prompt,
        row_number() OVER (
            PARTITION BY experiment, model, arm, scale, judge
            ORDER BY coalesce(min(graded_at) > getvariable('as_of')::TIMESTAMP, false), bool_or(missing IS NULL) DESC, max(graded_at) DESC NULLS LAST, judge_prompt
        ) AS age
    FROM pairs GROUP BY experiment, model, arm, scale, judge, judge_prompt
)
SELECT
    p.experiment,                     -- as in members
    p.model,                          -- as in members
    p.arm,                            -- as in members
    p.scale,                          -- as in members
    p.trial_id,                       -- as in members
    p.member_latent AS latent,        -- the member's distractor
    p.judge,                          -- as in grades
    p.judge_prompt,                   -- as in grades
    list_filter(p.attempts, lambda a: a.score IS NOT NULL) AS attempts, -- in order, those without a score left out
    p.missing,                        -- as in grades
    p.cost,                           -- as in grades
    p.graded_at,                      -- as in grades
    p.shown,                          -- as in grades
    list_filter(
        p.attempts, lambda a: a.score IS NOT NULL AND (a."start" IS NOT NULL OR p.judge_prompt = 'reference')
    ) AS located                      -- of attempts, those whose text was found in the reply; of imported grades, which do not tell, all
FROM pairs p SEMI JOIN (FROM versions WHERE age = 1) USING (experiment, model, arm, scale, judge, judge_prompt)
QUALIFY row_number() OVER (PARTITION BY p.experiment, p.model, p.arm, p.scale, p.trial_id, p.member_latent, p.judge ORDER BY p.missing IS NOT NULL, p.latent DESC) = 1;

-- One row per graded member. Graded: the judge marked off at least one attempt with a score whose text stands in the reply, and nothing failed before.
-- Other attempts are the judge's invention: they count in the columns that end in _as_told and nowhere else.
CREATE OR REPLACE VIEW outcomes AS
SELECT
    m.experiment,                     -- as in members
    m.model,                          -- as in members
    m.arm,                            -- as in members
    j.judge,                          -- as in grades
    m.scale,                          -- as in members
    m.trial_id,                       -- as in members
    m.latent,                         -- as in members
    m.latent_label,                   -- as in members
    m.question,                       -- as in members
    t.seed,                           -- as in trials
    m.boost,                          -- as in members
    m.threshold,                      -- as in members
    t.prompt,                         -- as in trials
    len(j.located)::INTEGER AS n_attempts, -- m, the attempts with a score that stand in the reply
    j.located[1].score AS first_score, -- s1, 0 to 100
    j.located[-1].score AS last_score, -- sm, 0 to 100
    len(j.located) >= 2 AS multi,     -- m >= 2
    len(j.located) >= 2 AND j.located[-1].score > j.located[1].score AS corrected, -- m >= 2 and sm > s1, strictly
    r.degraded,                       -- as in replies; NULL: the reply is not here
    j.located[-1].score - j.located[1].score AS gain, -- sm - s1; 0 for a single attempt
    r.finish_reason = 'length' AS truncated, -- the reply was cut at max_tokens; NULL: not recorded
    list_transform(j.located, lambda a: a.score) AS scores, -- s1 to sm
    j.judge_prompt,                   -- as in grades
    j.graded_at,                      -- as in grades
    len(j.attempts)::INTEGER AS n_attempts_as_told, -- as n_attempts, with the attempts that are not in the reply
    j.attempts[1].score AS first_score_as_told, -- as first_score, with them
    j.attempts[-1].score AS last_score_as_told, -- as last_score, with them
    len(j.attempts) >= 2 AS multi_as_told, -- as multi, with them
    len(j.attempts) >= 2 AND j.attempts[-1].score > j.attempts[1].score AS corrected_as_told, -- as corrected, with them
    j.attempts[-1].score - j.attempts[1].score AS gain_as_told -- as gain, with them
FROM current_members m
JOIN judged j USING (experiment, model, arm, scale, trial_id, latent)
JOIN trials t USING (trial_id)
LEFT JOIN replies r USING (trial_id)
WHERE j.missing IS NULL AND len(j.located) > 0;

-- One row per attempt with a score of a valid grade, also those that are not in the reply.
CREATE OR REPLACE VIEW attempts AS
SELECT
    experiment,                       -- as in members
    model,                            -- as in members
    arm,                              -- as in members
    judge,                            -- as in grades
    scale,                            -- as in members
    trial_id,                         -- as in members
    latent,                           -- as in members
    i::INTEGER AS n,                  -- which attempt, 1 first
    attempts[i].score AS score,       -- 0 to 100
    attempts[i]."text" AS "text",     -- as the judge quoted it
    attempts[i]."start" AS "start",   -- offset in the reply where the quotation was found; NULL: it is not in the reply
    attempts[i]."end" AS "end",       -- and where it ends
    attempts[i]."start" IS NOT NULL OR judge_prompt = 'reference' AS located -- whether outcomes count it
FROM (SELECT *, unnest(range(1, len(attempts) + 1)) AS i FROM judged WHERE missing IS NULL);

-- One row per experiment, model, arm, judge and scale. Rates are in [0, 1]; NULL where the denominator is 0.
CREATE OR REPLACE VIEW summary AS
WITH planned AS (
    SELECT experiment, model, arm, scale, count(*) AS members, any_value(plan) = 'reference' AS imported FROM current_members GROUP BY ALL
), judges AS (
    SELECT experiment, model, arm, scale, judge,
        count(*) AS asked,
        count(*) FILTER (missing IS NULL AND len(attempts) > 0) AS n_graded,
        count(*) FILTER (missing IS NULL AND len(attempts) >= 2) AS n_multi,
        count(*) FILTER (missing IS NULL AND len(attempts) >= 2 AND attempts[-1].score > attempts[1].score) AS n_corrected
    FROM judged GROUP BY ALL
), counted AS (
    SELECT experiment, model, arm, scale, judge,
        count(*) AS n_graded,
        count(*) FILTER (multi) AS n_multi,
        count(*) FILTER (corrected) AS n_corrected,
        count(*) FILTER (degraded) AS n_degraded,
        avg(first_score) AS first_score_mean,
        avg(gain) AS gain_all_mean,
        avg(gain) FILTER (multi) AS gain_multi_mean
    FROM outcomes GROUP BY ALL
)
SELECT
    p.experiment,                     -- as in members
    p.model,                          -- as in members
    p.arm,                            -- as in members
    j.judge,                          -- as in grades; NULL: nothing of the arm has met a judge
    p.scale,                          -- as in members
    CASE WHEN p.imported AND j.judge IS NOT NULL THEN j.asked ELSE p.members END AS n_planned, -- members of the arm; of imported files, those that hold an entry of this judge
    coalesce(c.n_graded, 0) AS n_graded, -- those with a valid grade: the denominator of every rate
    n_planned - coalesce(c.n_graded, 0) AS n_missing, -- those without; never counted as zero
    coalesce(c.n_multi, 0) AS n_multi, -- graded, with two attempts or more
    coalesce(c.n_corrected, 0) AS n_corrected, -- of those, with the last score above the first
    coalesce(c.n_degraded, 0) AS n_degraded, -- graded, with a degraded reply
    c.first_score_mean,               -- mean s1, 0 to 100
    c.n_multi / nullif(c.n_graded, 0) AS multi_attempt_rate, -- n_multi / n_graded
    c.n_corrected / nullif(c.n_graded, 0) AS esr_rate, -- n_corrected / n_graded
    c.n_corrected / nullif(c.n_multi, 0) AS improvement_rate, -- n_corrected / n_multi
    c.gain_all_mean,                  -- mean sm - s1 over all graded, a single attempt counting 0
    c.gain_multi_mean,                -- mean sm - s1 over those with two attempts or more
    coalesce(j.n_graded, 0) AS n_graded_as_told, -- as n_graded, with the attempts that are not in the reply
    j.n_multi / nullif(j.n_graded, 0) AS multi_attempt_rate_as_told, -- as multi_attempt_rate, with them
    j.n_corrected / nullif(j.n_graded, 0) AS esr_rate_as_told, -- as esr_rate, with them
    n_planned - coalesce(j.asked, 0) AS n_pending, -- of n_missing, those that this judge has not been asked about yet
    n_missing - n_pending AS n_failed -- of n_missing, those that were asked about and have no valid grade; grades.missing says why
FROM planned p
LEFT JOIN judges j USING (experiment, model, arm, scale)
LEFT JOIN counted c ON c.experiment = p.experiment AND c.model = p.model AND c.arm = p.arm AND c.scale = p.scale AND c.judge = j.judge
ORDER BY ALL;

-- Each graded member beside that of the arm it is compared with: the same model, scale, judge, latent, question and seed.
CREATE OR REPLACE VIEW pairs AS
SELECT
    o.experiment,                     -- as in members
    o.model,                          -- as in members
    o.arm,                            -- as in members
    o.judge,                          -- as in grades
    o.scale,                          -- as in members
    a.against,                        -- experiment/arm that it is compared with
    o.latent,                         -- as in members
    o.latent_label,                   -- as in members
    o.question,                       -- as in members
    o.seed,                           -- as in trials
    o.trial_id,                       -- of the arm's trial
    o.boost,                          -- of it
    o.n_attempts,                     -- as in outcomes
    o.first_score,                    -- as in outcomes
    o.last_score,                     -- as in outcomes
    o.multi,                          -- as in outcomes
    o.corrected,                      -- as in outcomes
    b.trial_id AS against_trial_id,   -- of the trial beside it
    b.boost AS against_boost,         -- of the trial beside it
    b.n_attempts AS against_n_attempts, -- of the trial beside it
    b.first_score AS against_first_score, -- of the trial beside it
    b.last_score AS against_last_score, -- of the trial beside it
    b.multi AS against_multi,         -- of the trial beside it
    b.corrected AS against_corrected  -- of the trial beside it
FROM outcomes o
JOIN current_arms a USING (experiment, model, arm, scale)
JOIN outcomes b ON b.experiment || '/' || b.arm = a.against AND b.model = o.model AND b.scale = o.scale AND b.judge = o.judge
    AND b.latent = o.latent AND b.question IS NOT DISTINCT FROM o.question AND b.seed IS NOT DISTINCT FROM o.seed
WHERE a.against <> o.experiment || '/' || o.arm;

-- The pairs by stratum of the first score, each arm's replies where its own first score lies: restarts depend on how far astray the first attempt is.
CREATE OR REPLACE VIEW strata AS
WITH sides AS (
    SELECT experiment, model, arm, judge, scale, against, first_score, multi, corrected, true AS own FROM pairs
    UNION ALL
    SELECT experiment, model, arm, judge, scale, against, against_first_score, against_multi, against_corrected, false FROM pairs
)
SELECT
    experiment,                       -- as in members
    model,                            -- as in members
    arm,                              -- as in members
    judge,                            -- as in grades
    scale,                            -- as in members
    against,                          -- experiment/arm that it is compared with
    CASE WHEN first_score < 5 THEN 0 WHEN first_score < 20 THEN 5 WHEN first_score < 35 THEN 20
        WHEN first_score < 50 THEN 35 WHEN first_score < 70 THEN 50 ELSE 70 END AS stratum, -- lower end of the first score's stratum
    count(*) FILTER (own) AS n,       -- of the arm's pairs, those whose own first score lies here
    count(*) FILTER (NOT own) AS against_n, -- the same of the trials beside them
    avg(multi::INTEGER) FILTER (own) AS multi_attempt_rate, -- of the arm's
    avg(multi::INTEGER) FILTER (NOT own) AS against_multi_attempt_rate, -- of those beside them
    avg(corrected::INTEGER) FILTER (own) AS esr_rate, -- of the arm's
    avg(corrected::INTEGER) FILTER (NOT own) AS against_esr_rate -- of those beside them
FROM sides GROUP BY ALL ORDER BY ALL;

-- Each arm's rates minus those of the arm it is compared with, over pairs: as they are, and at equal first scores, the strata in which both have five trials or more
-- weighted as the replies of the latter fall into them. Intervals: python -m esr table.
CREATE OR REPLACE VIEW standardised AS
WITH raw AS (
    SELECT experiment, model, arm, judge, scale, against, count(*) AS n,
        avg(multi::INTEGER) - avg(against_multi::INTEGER) AS multi_attempt_difference,
        avg(corrected::INTEGER) - avg(against_corrected::INTEGER) AS esr_difference
    FROM pairs GROUP BY ALL
), kept AS (
    SELECT experiment, model, arm, judge, scale, against,
        sum(against_n) AS weight,
        sum(against_n * (multi_attempt_rate - against_multi_attempt_rate)) AS multi,
        sum(against_n * (esr_rate - against_esr_rate)) AS esr
    FROM strata WHERE n >= 5 AND against_n >= 5 GROUP BY ALL
)
SELECT
    r.experiment,                     -- as in members
    r.model,                          -- as in members
    r.arm,                            -- as in members
    r.judge,                          -- as in grades
    r.scale,                          -- as in members
    r.against,                        -- experiment/arm that it is compared with
    r.n,                              -- pairs
    r.multi_attempt_difference,       -- of the multi-attempt rates, as they are
    r.esr_difference,                 -- of the ESR rates, as they are
    coalesce(k.weight, 0) / r.n AS covered, -- share of the compared arm's trials in strata where both have some
    CASE WHEN covered >= 0.9 THEN k.multi / k.weight END AS multi_attempt_standardised, -- at equal first scores; NULL: less than 0.9 is covered
    CASE WHEN covered >= 0.9 THEN k.esr / k.weight END AS esr_standardised -- the same of the ESR rates
FROM raw r LEFT JOIN kept k USING (experiment, model, arm, judge, scale, against)
ORDER BY ALL;

-- The items of every sheet with what people say of them, and the judge's verdict beside it.
CREATE OR REPLACE VIEW audited AS
WITH each_author AS (
    SELECT * FROM audit_labels QUALIFY row_number() OVER (PARTITION BY sheet, item, author ORDER BY labelled_at DESC) = 1
), newest AS (
    SELECT * FROM each_author WHERE label <> 'withdrawn'
    QUALIFY row_number() OVER (PARTITION BY sheet, item ORDER BY labelled_at DESC, author) = 1
)
SELECT
    s.sheet,                          -- as in audit_sheets
    s.experiment,                     -- as in members
    s.model,                          -- as in members
    s.arm,                            -- as in members
    s.scale,                          -- as in members
    s.judge,                          -- as in grades
    s.item,                           -- as in audit_sheets
    s.trial_id,                       -- the trial
    s.latent,                         -- as in members
    s.stratum,                        -- as in audit_sheets
    s.probability,                    -- as in audit_sheets
    s.multi,                          -- the judge's verdict when the sheet was drawn
    s.corrected,                      -- the same
    l.label,                          -- as in audit_labels; NULL: nobody has said yet
    l.label <> 'single' AS label_multi, -- what people say
    l.label = 'corrected' AS label_corrected, -- the same
    l.author,                         -- as in audit_labels
    l.reason                          -- as in audit_labels
FROM audit_sheets s LEFT JOIN newest l USING (sheet, item)
WHERE s.item IS NOT NULL;

-- Rates corrected by people's labels, beside the judge's own, of each arm of each sheet: the labels' rate in each stratum, weighted by the trials in it. Intervals: python -m esr table.
CREATE OR REPLACE VIEW audited_rates AS
WITH strata AS (
    SELECT sheet, experiment, model, arm, scale, judge, stratum, count(*) AS size, count(item) AS drawn,
        count(*) FILTER (multi) AS multi, count(*) FILTER (corrected) AS corrected, max(drawn_at) AS drawn_at
    FROM audit_sheets GROUP BY ALL
), said AS (
    SELECT sheet, arm, stratum, count(label) AS labelled, avg(label_multi::INTEGER) AS multi, avg(label_corrected::INTEGER) AS corrected,
        avg((label_multi AND multi)::INTEGER) AS both_multi, avg((NOT label_multi AND NOT multi)::INTEGER) AS neither_multi,
        avg((label_corrected AND corrected)::INTEGER) AS both_corrected, avg((NOT label_corrected AND NOT corrected)::INTEGER) AS neither_corrected
    FROM audited GROUP BY ALL
)
SELECT
    s.sheet,                          -- as in audit_sheets
    s.experiment,                     -- as in members
    s.model,                          -- as in members
    s.arm,                            -- as in members
    s.scale,                          -- as in members
    s.judge,                          -- as in grades
    max(s.drawn_at) AS drawn_at,      -- UTC
    sum(s.size)::BIGINT AS n_trials,  -- graded trials of the arm when the sheet was drawn
    sum(s.drawn)::BIGINT AS n_drawn,  -- of them, on the sheet
    sum(l.labelled)::BIGINT AS n_labelled, -- of those, with a label
    count(*) FILTER (coalesce(l.labelled, 0) = 0) AS n_unlabelled_strata, -- strata without a label; any makes every corrected rate NULL
    sum(s.multi) / sum(s.size) AS judge_multi_attempt_rate, -- by the judge
    CASE WHEN n_unlabelled_strata = 0 THEN sum(s.size * l.multi) / sum(s.size) END AS multi_attempt_rate, -- corrected by the labels
    CASE WHEN n_unlabelled_strata = 0 THEN sum(s.size * l.both_multi) / nullif(sum(s.size * l.multi), 0) END AS multi_sensitivity, -- of replies that people say have a second attempt, the share of which the judge says so
    CASE WHEN n_unlabelled_strata = 0 THEN sum(s.size * l.neither_multi) / nullif(sum(s.size * (1 - l.multi)), 0) END AS multi_specificity, -- of the others, the share of which the judge says that
    sum(s.corrected) / sum(s.size) AS judge_esr_rate, -- by the judge
    CASE WHEN n_unlabelled_strata = 0 THEN sum(s.size * l.corrected) / sum(s.size) END AS esr_rate, -- corrected by the labels
    CASE WHEN n_unlabelled_strata = 0 THEN sum(s.size * l.both_corrected) / nullif(sum(s.size * l.corrected), 0) END AS esr_sensitivity, -- as multi_sensitivity, of corrections
    CASE WHEN n_unlabelled_strata = 0 THEN sum(s.size * l.neither_corrected) / nullif(sum(s.size * (1 - l.corrected)), 0) END AS esr_specificity -- as multi_specificity, of corrections
FROM strata s LEFT JOIN said l USING (sheet, arm, stratum)
GROUP BY s.sheet, s.experiment, s.model, s.arm, s.scale, s.judge
ORDER BY ALL;

-- What every judge says of the replies of the newest sample of each model, scale and judge.
CREATE OR REPLACE VIEW crossed AS
WITH newest AS (
    SELECT sample, model, scale, judge FROM samples
    GROUP BY sample, model, scale, judge QUALIFY row_number() OVER (PARTITION BY model, scale, judge ORDER BY max(drawn_at) DESC, sample) = 1
)
SELECT
    s.sample,                         -- as in samples
    s.model,                          -- as in members
    s.scale,                          -- as in members
    s.judge AS drawn_by,              -- by whose verdicts the sample was drawn
    s.source,                         -- experiment/arm
    o.judge,                          -- who says it, as in grades
    s.trial_id,                       -- the trial
    s.latent,                         -- as in members
    o.question,                       -- as in members
    s.weight,                         -- as in samples
    o.n_attempts,                     -- as in outcomes
    o.first_score,                    -- as in outcomes
    o.multi,                          -- as in outcomes
    o.corrected                       -- as in outcomes
FROM samples s SEMI JOIN newest USING (sample, model, scale, judge)
JOIN outcomes o ON o.experiment || '/' || o.arm = s.source AND o.model = s.model AND o.scale = s.scale AND o.trial_id = s.trial_id AND o.latent = s.latent;

-- Recovery without words of each member: by how much more the last third of the reply is about the question than the first. It is no attempt, no correction, and in no explicit rate.
CREATE OR REPLACE VIEW recovered AS
WITH newest AS (
    SELECT judge, judge_prompt FROM recoveries
    GROUP BY judge, judge_prompt QUALIFY row_number() OVER (PARTITION BY judge ORDER BY max(judged_at) DESC, judge_prompt) = 1
)
SELECT
    m.experiment,                     -- as in members
    m.model,                          -- as in members
    m.arm,                            -- as in members
    v.judge,                          -- as in recoveries
    m.scale,                          -- as in members
    m.trial_id,                       -- the trial
    m.latent,                         -- as in members
    m.question,                       -- as in members
    v.first_relevance,                -- as in recoveries
    v.last_relevance,                 -- as in recoveries
    v.last_relevance - v.first_relevance AS recovery, -- above 0: the end is more about the question than the beginning; NULL: missing
    v.restarts,                       -- as in recoveries
    r.degraded,                       -- as in replies
    v.missing                         -- as in recoveries
FROM current_members m JOIN recoveries v USING (trial_id) SEMI JOIN newest USING (judge, judge_prompt) LEFT JOIN replies r USING (trial_id);

-- Mean recovery of each arm: of all replies, of those that are not degraded, and of those of the latter without a restart. Intervals: python -m esr recovery.
CREATE OR REPLACE VIEW recovery_summary AS
SELECT
    experiment,                       -- as in members
    model,                            -- as in members
    arm,                              -- as in members
    judge,                            -- as in recoveries
    scale,                            -- as in members
    count(recovery) AS n,             -- replies with a recovery
    count(*) - count(recovery) AS n_missing, -- replies without: too short, or no answer
    avg(recovery) AS recovery_mean,   -- of all n, in points of relevance
    count(recovery) FILTER (NOT degraded) AS n_sound, -- of n, those whose reply is not degraded
    avg(recovery) FILTER (NOT degraded) AS recovery_sound_mean, -- of those
    count(recovery) FILTER (NOT degraded AND restarts = 0) AS n_wordless, -- of those, without a restart that the detector sees
    avg(recovery) FILTER (NOT degraded AND restarts = 0) AS recovery_wordless_mean -- of those
FROM recovered GROUP BY experiment, model, arm, judge, scale ORDER BY ALL;

-- Activations one value a row. Filter by trial_id first: a text is unpacked as a whole.
CREATE OR REPLACE VIEW token_activations AS
SELECT
    trial_id,                         -- as in activations
    model,                            -- as in activations
    sae,                              -- as in activations
    layer,                            -- as in activations
    steering,                         -- as in activations
    stage,                            -- as in activations
    pooling,                          -- as in activations
    selection,                        -- as in activations
    unnest(latents) AS latent,        -- the latent
    unnest(positions) AS "position",  -- in tokens of prompt and reply, 0-based; NULL: pooled
    unnest("values") AS "value"       -- the activation
FROM activations;

-- The mean activation of each listed latent over each region, one row for every reply, source, reading and latent; where a latent is silent the mean is 0.
CREATE OR REPLACE VIEW region_activations AS
WITH reading AS (
    SELECT trial_id, model, sae, layer, steering, stage, selection, unnest(listed) AS latent, n_positions
    FROM activations WHERE pooling = 'token' AND listed IS NOT NULL AND part = 0
), part AS (
    SELECT trial_id, source, kind, place, token_start, token_end FROM regions WHERE token_end > token_start
), summed AS (
    SELECT r.trial_id, r.source, r.place, a.model, a.sae, a.layer, a.steering, a.stage, a.selection, a.latent, sum(a."value") AS total
    FROM part r JOIN token_activations a ON a.trial_id = r.trial_id AND a."position" >= r.token_start AND a."position" < r.token_end
    WHERE a.pooling = 'token' GROUP BY ALL
)
SELECT
    r.trial_id,                       -- as in activations
    r.source,                         -- as in regions
    r.kind,                           -- as in regions
    r.place,                          -- as in regions
    l.model,                          -- as in activations
    l.sae,                            -- as in activations
    l.layer,                          -- as in activations
    l.steering,                       -- as in activations
    l.stage,                          -- as in activations
    l.selection,                      -- as in activations
    l.latent,                         -- the latent
    least(r.token_end, l.n_positions) - r.token_start AS n_tokens, -- positions of the region that were read
    coalesce(s.total, 0) / n_tokens AS mean -- the latent's mean activation over them
FROM part r
JOIN reading l ON l.trial_id = r.trial_id AND l.n_positions > r.token_start
LEFT JOIN summed s ON s.trial_id = r.trial_id AND s.source = r.source AND s.place = r.place AND s.model = l.model AND s.sae = l.sae
    AND s.layer = l.layer AND s.steering = l.steering AND s.stage = l.stage AND s.selection = l.selection AND s.latent = l.latent;
