"""Labels of our own for any SAE: what its latents fire on, said in words, and scored on texts that were not looked at.

texts         made by the model itself, or a person's; half of them held out     readings     each latent's peak in each text, on disk
evidence      the strongest peaks of every latent, in bounded memory             passages     a peak with the words around it
local         words that are over-represented, no key                            provided     a judge of params.yaml is asked
score         does the label tell in which held-out texts the latent fires       made         all of it, and the file that a study reads
"""
