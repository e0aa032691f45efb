-- The tables. Each holds what shards/<table>/*.parquet hold, each primary key once.
-- A line of comment under a table or beside a column is its documentation; docs/store.md is generated from this file.

-- One generation to be made or made: everything that determines the reply.
CREATE TABLE trials (
    trial_id VARCHAR PRIMARY KEY,     -- hash of every field below; of an imported trial, of its file and place in it
    model VARCHAR NOT NULL,           -- name in params.yaml; an unknown model keeps the name its file gives it
    weights VARCHAR,                  -- what the name meant: hub id or folder, revision or hash, dtype, quantization, adapter; NULL: imported
    prompt VARCHAR NOT NULL,          -- the whole user turn, suffix included
    prompt_format VARCHAR,            -- clean, or double_header (a second BOS and header); NULL: not recorded by the import's source
    prefill VARCHAR,                  -- what the assistant's turn was begun with, to read
    prefill_ids INTEGER[],            -- its tokens, which are part of the trial's identity; NULL: none, or text was put there by an older version
    seed BIGINT,                      -- the sampling seed
    temperature DOUBLE,               -- of the sampling
    top_p DOUBLE,                     -- of the sampling
    repetition_penalty DOUBLE,        -- of the sampling
    max_tokens INTEGER,               -- length at which the reply is cut
    scope VARCHAR,                    -- positions the interventions touch: all, prompt, generated, [lo,hi), generated[n,m), …
    ops STRUCT(kind VARCHAR, latent INTEGER, value DOUBLE, layer INTEGER, sae VARCHAR)[], -- the interventions; empty: unsteered
    op_details VARCHAR,               -- what each of them has beside, as a JSON list: scope, schedule, shape, when; NULL: nothing
    meaning VARCHAR                   -- what else stood behind names, as JSON: chat (hash of the rendering), saes (hash of each SAE that ops name), room (where the model's length could cut the reply); NULL: not recorded
);

-- A trial's place in an experiment. One trial may be a member of many arms.
CREATE TABLE members (
    experiment VARCHAR NOT NULL,      -- exp01 to exp10, or later ones
    model VARCHAR NOT NULL,           -- as in trials
    arm VARCHAR NOT NULL,             -- a condition within the experiment
    scale VARCHAR NOT NULL,           -- full or smoke; rows of different scales are never pooled
    plan VARCHAR NOT NULL,            -- hash of all members of the arm as planned at once; 'reference': imported files
    trial_id VARCHAR NOT NULL,        -- the trial
    question VARCHAR,                 -- the object-level question without any suffix
    latent INTEGER NOT NULL,          -- the distractor, also of an unsteered trial; -1: none
    latent_label VARCHAR,             -- what the distractor is said to stand for
    boost DOUBLE,                     -- coefficient on the distractor's decoder row; 0: unsteered
    threshold DOUBLE,                 -- the distractor's own calibrated boost, when known
    PRIMARY KEY (experiment, model, arm, scale, plan, trial_id, latent)
);

-- When an arm was planned. The views count the latest plan of each arm, so a changed study replaces its arm and does not join it.
CREATE TABLE plans (
    experiment VARCHAR NOT NULL,      -- as in members
    model VARCHAR NOT NULL,           -- as in members
    arm VARCHAR NOT NULL,             -- as in members
    scale VARCHAR NOT NULL,           -- as in members
    plan VARCHAR NOT NULL,            -- as in members
    recorded_at TIMESTAMP NOT NULL,   -- UTC
    PRIMARY KEY (experiment, model, arm, scale, plan, recorded_at)
);

-- A condition as it was laid out. Of several rows of one arm the newest stands; current_arms fills in what older stores did not record.
CREATE TABLE arms (
    experiment VARCHAR NOT NULL,      -- as in members
    model VARCHAR NOT NULL,           -- as in members
    arm VARCHAR NOT NULL,             -- as in members
    scale VARCHAR NOT NULL,           -- as in members
    kind VARCHAR,                     -- what sort of condition: baseline, ablated, meta-prompt, unsteered, absolute, relative or another
    level DOUBLE,                     -- its number where arms of a kind are a series: a boost, a multiple of the threshold, the number of a set
    place INTEGER,                    -- its order among the experiment's arms, 0 first
    against VARCHAR,                  -- experiment/arm that it is compared with; NULL: with none
    mean DOUBLE,                      -- of the thresholds that absolute levels were laid over; NULL: none were, or not recorded
    std DOUBLE,                       -- of the same, ddof 0
    recorded_at TIMESTAMP NOT NULL,   -- UTC
    PRIMARY KEY (experiment, model, arm, scale)
);

-- What came back for a trial.
CREATE TABLE replies (
    trial_id VARCHAR PRIMARY KEY,     -- the trial
    text VARCHAR NOT NULL,            -- the reply
    token_ids INTEGER[],              -- as generated; NULL: imported
    n_prompt_tokens INTEGER,          -- length of the rendered prompt
    finish_reason VARCHAR,            -- stop (the model ended its turn) or length (cut at max_tokens); NULL: not recorded
    applied BIGINT,                   -- positions an intervention was applied to; 0: unsteered
    degraded BOOLEAN                  -- the words hold five times or more the same word of two letters or more in a row
);

-- One judge's verdict on one reply about one distractor. Of several with the same key a graded one stands before a missing one, and the newest before an older one.
CREATE TABLE grades (
    trial_id VARCHAR NOT NULL,        -- the trial whose reply was graded
    latent INTEGER NOT NULL,          -- the distractor the judge was told of; -1: none or blind
    judge VARCHAR NOT NULL,           -- name in params.yaml
    judge_prompt VARCHAR NOT NULL,    -- hash of the judge's instructions and parameters; 'reference': imported
    attempts STRUCT(score DOUBLE, "text" VARCHAR, "start" INTEGER, "end" INTEGER)[], -- in order; score 0 to 100 or NULL; start and end: where the quotation stands in the reply
    missing VARCHAR,                  -- why there is no valid grade; NULL: graded
    answer_key VARCHAR,               -- the stored raw answer this grade was read from
    input_tokens BIGINT,              -- sent to the judge
    output_tokens BIGINT,             -- written by the judge
    cost DOUBLE,                      -- US dollars; NULL: the price is unknown
    graded_at TIMESTAMP,              -- UTC; of an imported grade, the time in the file's name
    shown VARCHAR,                    -- hash of what the judge was shown besides its instructions and the reply: the prompt and, unless it is blind, the label; NULL: not recorded
    PRIMARY KEY (trial_id, latent, judge, judge_prompt)
);

-- The boost at which a latent bites.
CREATE TABLE thresholds (
    calibration_id VARCHAR PRIMARY KEY, -- hash of weights, protocol and latent; of an import, of its file and place
    model VARCHAR NOT NULL,           -- as in trials
    latent INTEGER NOT NULL,          -- the latent
    label VARCHAR,                    -- what it is said to stand for
    threshold DOUBLE,                 -- boost at which the mean first-attempt score meets the target
    low DOUBLE,                       -- lower end of the 95 % posterior interval
    high DOUBLE,                      -- upper end of it
    status VARCHAR,                   -- converged, never_bites, always_bites, unresolved, reference or reference-ablated
    target DOUBLE,                    -- the score looked for, in [0, 1]
    verified_score DOUBLE,            -- mean first-attempt score at the threshold afterwards, in [0, 1]
    asks STRUCT(boost DOUBLE, score DOUBLE, n INTEGER)[], -- the search: boosts tried, mean score in [0, 1], samples
    clamped INTEGER[]                 -- other latents that were held at zero during the search; NULL: none
);

-- How long a model's residual stream is where it is steered. Of several of one model, weights and block the newest counts.
CREATE TABLE norms (
    norm_id VARCHAR PRIMARY KEY,      -- hash of the trials whose replies were read, the block and the positions
    model VARCHAR NOT NULL,           -- as in trials
    weights VARCHAR NOT NULL,         -- as in trials
    layer INTEGER NOT NULL,           -- decoder block whose output was read, 0-based
    scope VARCHAR NOT NULL,           -- the positions: those that the study steers, as in trials
    norm DOUBLE NOT NULL,             -- median length of the stream over an unsteered reply to each evaluation question
    tokens BIGINT NOT NULL,           -- positions that the median is over
    replies INTEGER NOT NULL,         -- replies that were read
    measured_at TIMESTAMP NOT NULL    -- UTC
);

-- The length of a latent's decoder row, or of a direction, as the engine adds it at a boost of 1.
CREATE TABLE lengths (
    model VARCHAR NOT NULL,           -- as in trials
    sae VARCHAR NOT NULL,             -- name in params.yaml, of an SAE or a set of directions
    content VARCHAR NOT NULL,         -- hash of it, as in trials.meaning
    layer INTEGER NOT NULL,           -- decoder block after which it is added, 0-based
    latent INTEGER NOT NULL,          -- the latent
    length DOUBLE NOT NULL,           -- of what a boost of 1 adds
    measured_at TIMESTAMP NOT NULL,   -- UTC
    PRIMARY KEY (model, sae, content, layer, latent)
);

-- Latents that are ablated: off-topic detectors and the controls in their place.
CREATE TABLE detectors (
    set_id VARCHAR NOT NULL,          -- hash of what the set depends on
    model VARCHAR NOT NULL,           -- as in trials
    latent INTEGER NOT NULL,          -- the latent
    label VARCHAR,                    -- what it is said to stand for
    kind VARCHAR NOT NULL,            -- detector, matched or uniform
    rank INTEGER,                     -- place in the set, 0 first
    matched_mean DOUBLE,              -- mean largest activation over pairs of a question and its own reply
    matched_active DOUBLE,            -- share of those pairs in which it is active
    mismatched_mean DOUBLE,           -- the same over questions with another question's reply
    mismatched_active DOUBLE,         -- the same
    auc DOUBLE,                       -- P(a mismatched pair reads higher than a matched one) + half P(alike), over the pairs that it was chosen by
    auc_held_out DOUBLE,              -- the same over the pairs of the questions that chose nothing; NULL: all of them chose
    auc_low DOUBLE,                   -- lower end of its 95 % interval over questions
    auc_high DOUBLE,                  -- upper end of it
    PRIMARY KEY (set_id, latent)
);

-- One run of an experiment with everything that says how it was made.
CREATE TABLE runs (
    run_id VARCHAR PRIMARY KEY,       -- hash of the manifest and its start
    experiment VARCHAR,               -- as in members
    model VARCHAR,                    -- as in members
    scale VARCHAR,                    -- as in members
    started_at TIMESTAMP,             -- UTC
    finished_at TIMESTAMP,            -- UTC; NULL: not finished when recorded
    status VARCHAR,                   -- running, or how it ended
    cost DOUBLE,                      -- US dollars of judging in this run; NULL: unknown
    manifest JSON,                    -- revision, params, versions, engine, SAE, prompts, host
    judge VARCHAR,                    -- whose grades it asks for; NULL: not recorded
    name VARCHAR,                     -- what a person calls it; NULL: nothing
    hidden BOOLEAN,                   -- a person does not want to see it in lists; NULL: it is shown
    recorded_at TIMESTAMP             -- UTC, of this row: a finished run stands before a running one, then the newest; NULL: not recorded
);

-- What the SAE reads of a text, as lists of equal length: latent, position and value. A text's values are cut into parts of a few thousand, so that
-- readers need little memory. View token_activations has one value a row.
CREATE TABLE activations (
    trial_id VARCHAR NOT NULL,        -- the trial whose reply was read; of another text, its hash
    model VARCHAR NOT NULL,           -- as in trials
    sae VARCHAR NOT NULL,             -- name in params.yaml
    layer INTEGER NOT NULL,           -- decoder block whose output was read, 0-based
    steering VARCHAR NOT NULL,        -- on: teacher-forced with the trial's own interventions; off: without
    stage VARCHAR NOT NULL,           -- before or after the interventions of this layer
    pooling VARCHAR NOT NULL,         -- token: as they are; max or mean: over the positions
    selection VARCHAR NOT NULL,       -- which latents are told: top-32 (the largest at each position) or a name of a list of latents
    part INTEGER NOT NULL,            -- which part of the text's values, 0 first
    latents INTEGER[] NOT NULL,       -- of each value; values run latent by latent for a list, position by position for the largest
    positions INTEGER[],              -- of each value, in tokens of prompt and reply, 0-based; NULL: pooled
    "values" FLOAT[] NOT NULL,        -- the activations; where a listed latent has none it is 0
    listed INTEGER[],                 -- the latents of the list, also those that were nowhere active; NULL: the largest
    n_positions INTEGER,              -- positions that were read
    PRIMARY KEY (trial_id, model, sae, layer, steering, stage, pooling, selection, part)
);

-- Parts of a prompt and its reply, by who marked them off.
CREATE TABLE regions (
    trial_id VARCHAR NOT NULL,        -- the trial
    source VARCHAR NOT NULL,          -- who marked it: a judge's name and the hash of its instructions, or the rule's name
    kind VARCHAR NOT NULL,            -- prompt, off-topic, correction or on-topic
    place INTEGER NOT NULL,           -- its order in the text, 0 first
    char_start INTEGER,               -- offset in the reply; NULL: of the prompt, or not found
    char_end INTEGER,                 -- and where it ends
    token_start INTEGER,              -- position in tokens of prompt and reply; NULL: not worked out
    token_end INTEGER,                -- and where it ends
    PRIMARY KEY (trial_id, source, place)
);

-- The graded trials of an arm as they stood when a sheet was drawn of them for people to label; those with an item are on the sheet.
CREATE TABLE audit_sheets (
    sheet VARCHAR NOT NULL,           -- hash of what the sheet was drawn from and how
    experiment VARCHAR NOT NULL,      -- as in members
    model VARCHAR NOT NULL,           -- as in members
    arm VARCHAR NOT NULL,             -- as in members
    scale VARCHAR NOT NULL,           -- as in members
    judge VARCHAR NOT NULL,           -- whose verdict it was drawn by, as in grades
    trial_id VARCHAR NOT NULL,        -- the trial
    latent INTEGER NOT NULL,          -- as in members
    question VARCHAR,                 -- as in members
    stratum VARCHAR NOT NULL,         -- the judge's verdict (single, multi, corrected), with +restart where the restart detector sees one
    multi BOOLEAN NOT NULL,           -- the judge's verdict, as in outcomes
    corrected BOOLEAN NOT NULL,       -- the same
    item VARCHAR,                     -- its id on the sheet; NULL: not drawn
    probability DOUBLE NOT NULL,      -- with which a trial of its stratum was drawn
    drawn_at TIMESTAMP NOT NULL,      -- UTC
    PRIMARY KEY (sheet, arm, trial_id, latent)
);

-- What people say of the items of a sheet. Of several of one item the newest that its author has not withdrawn stands; the others stay.
CREATE TABLE audit_labels (
    sheet VARCHAR NOT NULL,           -- as in audit_sheets
    item VARCHAR NOT NULL,            -- as in audit_sheets
    author VARCHAR NOT NULL,          -- who says it
    label VARCHAR NOT NULL,           -- single, multi (a second attempt that is no better), corrected (one that is) or withdrawn (the author takes back what was said)
    reason VARCHAR,                   -- why, in the author's words
    labelled_at TIMESTAMP NOT NULL,   -- UTC, when it was read
    PRIMARY KEY (sheet, item, author, labelled_at)
);

-- Replies that were put to several judges, with the number of replies that each stands for.
CREATE TABLE samples (
    sample VARCHAR NOT NULL,          -- hash of what is in the sample
    model VARCHAR NOT NULL,           -- as in members
    scale VARCHAR NOT NULL,           -- as in members
    judge VARCHAR NOT NULL,           -- by whose verdicts it was drawn
    source VARCHAR NOT NULL,          -- experiment/arm
    trial_id VARCHAR NOT NULL,        -- the trial
    latent INTEGER NOT NULL,          -- as in members
    multi BOOLEAN NOT NULL,           -- the verdict that it was drawn by
    weight DOUBLE NOT NULL,           -- graded replies that it stands for
    drawn_at TIMESTAMP NOT NULL,      -- UTC; of a model, scale and judge the newest sample counts
    PRIMARY KEY (sample, source, trial_id, latent)
);

-- How far the first and the last third of a reply are about its question, whatever it says of itself: recovery without words.
CREATE TABLE recoveries (
    trial_id VARCHAR NOT NULL,        -- the trial whose reply was read
    judge VARCHAR NOT NULL,           -- name in params.yaml
    judge_prompt VARCHAR NOT NULL,    -- hash of the judge's instructions and parameters for this
    first_relevance DOUBLE,           -- of the first third, in whole sentences, 0 to 100
    last_relevance DOUBLE,            -- of the last third
    restarts INTEGER,                 -- how many the restart detector sees in the reply
    missing VARCHAR,                  -- why there is no relevance, such as too short (fewer than three sentences); NULL: there is
    cost DOUBLE,                      -- US dollars; NULL: the price is unknown
    judged_at TIMESTAMP NOT NULL,     -- UTC; of several a valid one stands, then the newest
    PRIMARY KEY (trial_id, judge, judge_prompt)
);

-- Where each token of a reply stands in its text.
CREATE TABLE tokens (
    trial_id VARCHAR PRIMARY KEY,     -- the trial
    char_starts INTEGER[] NOT NULL,   -- offset in the reply at which each of replies.token_ids begins; tokens that share a character share its span
    char_ends INTEGER[] NOT NULL      -- and where it ends
);

-- The lists of latents whose activations an experiment reads, by what they are. Of several rows the newest stands.
CREATE TABLE watched (
    experiment VARCHAR NOT NULL,      -- as in members
    model VARCHAR NOT NULL,           -- as in trials
    scale VARCHAR NOT NULL,           -- as in members
    kind VARCHAR NOT NULL,            -- detectors, by-label (backtracking by what they are said to stand for) or by-contrast (by what they do)
    latents INTEGER[] NOT NULL,       -- the latents, in order
    labels VARCHAR[] NOT NULL,        -- what each is said to stand for; empty: nobody has said
    selection VARCHAR NOT NULL,       -- as in activations: under which name they were read
    recorded_at TIMESTAMP NOT NULL,   -- UTC
    PRIMARY KEY (experiment, model, scale, kind)
);

-- Files read by `python -m esr import-reference`, used or not.
CREATE TABLE imports (
    file VARCHAR NOT NULL,            -- path below the imported folder
    sha256 VARCHAR PRIMARY KEY,       -- of its bytes; the same bytes count once under any name
    kind VARCHAR NOT NULL,            -- results, regraded, threshold_cache, detectors, …, or foreign
    rows BIGINT,                      -- rows that entered
    problems VARCHAR[]                -- what could not be used, and why
);

-- Which file an imported row came from.
CREATE TABLE provenance (
    sha256 VARCHAR NOT NULL,          -- as in imports
    relation VARCHAR NOT NULL,        -- the table the row is in: trials, thresholds, detectors
    id VARCHAR NOT NULL,              -- the row's trial_id, calibration_id or set_id
    PRIMARY KEY (sha256, relation, id)
);

-- What imported files hold beside trials: activation statistics, episodes, ratings, samples.
CREATE TABLE findings (
    sha256 VARCHAR NOT NULL,          -- as in imports
    kind VARCHAR NOT NULL,            -- as in imports
    item VARCHAR NOT NULL,            -- the entry of the file: an episode, a latent, a label
    content JSON,                     -- as it stands there
    PRIMARY KEY (sha256, kind, item)
);
